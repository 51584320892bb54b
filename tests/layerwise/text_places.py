"""Where each text type of the census keeps its blocks, how many, and what the order of execution cannot tell.

Written down by hand from the models' code: the oracle reads these tables, the engine that makes layer maps does not.
"""

from tests.layerwise.text_census import DEPTH

Place = tuple[str, int | str]
"""(stack, layer): the stack is `text` or `vision`, the layer a number or `head`."""

# Lists of blocks in the order in which they run, as paths inside the base model; a path with * is a list of lists,
# and paths joined by + are lists whose entries of one index make one block.
BLOCK_LISTS = {
    "layers": """arcee axk1 axk2 biogpt cohere_compass_text deepseek_v2 deepseek_v3 diffllama doge esmc eurobert exaone4
        gemma gemma2 gemma3_text glm glm4 gpt_neox gpt_oss gte helium hunyuan_v1_dense hunyuan_v1_moe jamba jetmoe
        jina_embeddings_v3 llama minicpm3 minimax ministral ministral3 mistral mistral4 mixtral modernbert
        modernbert-decoder nemotron nomic_bert olmo olmo2 olmo3 persimmon phi phi3 phimoe qwen2 qwen2_moe qwen3
        qwen3_5_text qwen3_moe qwen3_next seed_oss smollm3 stablelm starcoder2 ultrabert zamba zamba2""",
    "encoder.layer": """bert big_bird camembert convbert data2vec-text deberta deberta-v2 electra ernie esm fnet ibert
        layoutlm layoutlmv3 lilt longformer luke markuplm megatron-bert mobilebert mpnet mra nystromformer rembert
        roberta roberta-prelayernorm roc_bert roformer tapas xlm-roberta xlm-roberta-xl xmod yoso""",
    "h": "bloom ctrl falcon gpt-sw3 gpt2 gpt_bigcode gpt_neo gptj openai-gpt",
    "encoder.layers decoder.layers": "bart bigbird_pegasus mbart mvp plbart t5gemma",
    "encoder.block decoder.block": "mt5 t5 umt5",
    "encoder.layers": "reformer squeezebert",
    "attentions+layer_norm1+ffns+layer_norm2": "flaubert xlm",
    "language_model.layers": "gemma3 qwen3_5",
    "text_model.layers": "modernvbert ultravbert",
    "encoder.text_model.layers decoder.layers": "t5gemma2",
    "encoder.albert_layer_groups": "albert",
    "initial_char_encoder.layer encoder.layer final_char_encoder.layer": "canine",
    "transformer.layer": "distilbert",
    "encoder.blocks.* decoder.layers": "funnel",
    "blocks": "mpt",
    "decoder.layers": "opt",
    "encoder.self_attends": "perceiver",
    "layer": "xlnet",
}
PATHS = {model_type: paths.split() for paths, types in BLOCK_LISTS.items() for model_type in types.split()}
VISION_PATHS = {
    "gemma3": "vision_tower.encoder.layers",
    "modernvbert": "vision_model.encoder.layers",
    "qwen3_5": "visual.blocks",
    "t5gemma2": "encoder.vision_tower.encoder.layers",
    "ultravbert": "vision_model.encoder.layers",
}
# Number of blocks of each list above, where it is not DEPTH: a shared block counts once.
DEPTHS = {
    "albert": [1],
    "bart": [DEPTH, DEPTH + 1],
    "bigbird_pegasus": [DEPTH, DEPTH + 1],
    "canine": [1, DEPTH, 1],
    "funnel": [5, 2],
    "gpt_neo": [4],
    "jamba": [4],
    "mbart": [DEPTH, DEPTH + 1],
    "mt5": [DEPTH, DEPTH + 1],
    "mvp": [DEPTH, DEPTH + 1],
    "plbart": [DEPTH, DEPTH + 1],
    "t5": [DEPTH, DEPTH + 1],
    "t5gemma": [DEPTH, DEPTH],
    "t5gemma2": [DEPTH, DEPTH],
    "umt5": [DEPTH, DEPTH + 1],
    "zamba": [5],
    "zamba2": [5],
}
VISION_DEPTHS = {"qwen3_5": DEPTH - 1}

# What no module calls in this forward pass, or what lies inside a block and belongs to none; searched in the name
# inside the base model.
EMBEDDINGS: set[Place] = {("text", 0)}
BESIDE_THE_ORDER: list[tuple[str, str, set[Place]]] = [
    # The table in the first block serves all blocks (Raffel et al. 2020, https://arxiv.org/abs/1910.10683).
    ("t5|mt5", r"\.relative_attention_bias\.", EMBEDDINGS),
    # Tables read by weight, not called.
    ("deberta|deberta-v2", r"^encoder\.rel_embeddings\.", EMBEDDINGS),
    ("layoutlmv3", r"^encoder\.rel_pos_(x_|y_)?bias\.", EMBEDDINGS),
    ("xlnet", r"^mask_emb$", EMBEDDINGS),
    # Inputs that this batch does not have: page images, entities, and token ids that a sibling reads for them.
    ("layoutlmv3", r"^(patch_embed|norm|LayerNorm)\.|^(cls_token|pos_embed)$", EMBEDDINGS),
    ("luke", r"^entity_embeddings\.", EMBEDDINGS),
    ("bart|bigbird_pegasus|mbart|mt5|mvp|plbart|t5|umt5", r"^shared\.", EMBEDDINGS),
    # XLM's languages, which this batch does not tell.
    ("xlm|flaubert", r"^lang_embeddings\.", EMBEDDINGS),
    # From the hidden size back to that of the embeddings, behind the last block (OPT-350m).
    ("opt", r"^decoder\.project_out\.", {("text", DEPTH), ("text", "head")}),
    # The pooler reads the middle one of three stacks.
    ("canine", r"^pooler\.", {("text", "head")}),
    # A head that predicts contacts, called on demand.
    ("esm", r"^contact_head\.", {("text", "head")}),
    # From the vision tower to the text: either the tower's end or an embedding projection.
    ("gemma3|t5gemma2", r"multi_modal_projector\.", {("text", 0), ("vision", DEPTH)}),
    ("modernvbert|ultravbert", r"^connector\.", {("text", 0), ("vision", DEPTH)}),
    ("qwen3_5", r"^visual\.merger\.", {("text", 0), ("vision", DEPTH - 1)}),
    # SigLIP's attention pooling, which these models never call: only the text's tower has a head.
    ("gemma3|modernvbert|t5gemma2|ultravbert", r"vision_(tower|model)\.head\.", {("vision", DEPTH)}),
]
