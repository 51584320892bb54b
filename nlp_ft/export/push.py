"""Pushes the files of a run to the Hugging Face Hub: all in one commit, so that nothing is ever half there."""

from collections.abc import Iterator
from contextlib import contextmanager

from huggingface_hub import CommitOperationAdd, HfApi, constants, get_token
from huggingface_hub.errors import HfHubHTTPError, HFValidationError
from huggingface_hub.utils import validate_repo_id

from nlp_ft.errors import HubError
from nlp_ft.export.hub_files import HubFiles

REFUSED = (401, 403)


def require_repo_id(repo_id: str) -> None:
    """Check the name of a repository. Raises: HubError."""
    try:
        validate_repo_id(repo_id)
        is_valid = repo_id.count("/") == 1
    except HFValidationError:
        is_valid = False
    if not is_valid:
        raise HubError(f"the place on the Hub must be ORG/NAME, such as my-name/my-model, got {repo_id!r}")


def push_files(files: HubFiles, repo_id: str, *, public: bool = False) -> tuple[str, bool]:
    """Make the repository if there is none, and commit the files.

    Args:
        files: what goes up.
        repo_id: `ORG/NAME`; the organization may be the user.
        public: whether all may see it; a repository that exists keeps its visibility.

    Returns:
        The address of the model, and whether it is private.

    Raises:
        HubError: there is no token, it may not write there, all could see what should be private, or the Hub does not
            answer.
    """
    if get_token() is None:
        raise HubError(
            "there is no token for the Hugging Face Hub; run `hf auth login`, or set HF_TOKEN to a token that may "
            "write (huggingface.co/settings/tokens)"
        )
    api = HfApi(endpoint=constants.ENDPOINT, library_name="nlp_ft")
    with _failure_explained(repo_id):
        url = str(api.create_repo(repo_id, private=not public, exist_ok=True))
        is_private = bool(api.model_info(repo_id).private)
        if not (public or is_private):
            raise HubError(
                f"{repo_id} can be seen by all; pass --public if these files may be, or choose another name. Nothing "
                "was sent"
            )
        operations = [CommitOperationAdd(name, content) for name, content in files.contents.items()]
        api.create_commit(repo_id, operations, commit_message="A run of nlp_ft")
    return url, is_private


@contextmanager
def _failure_explained(repo_id: str) -> Iterator[None]:
    """Turn whatever the client raises into one error. Raises: HubError."""
    try:
        yield
    except HubError:
        raise
    except Exception as error:  # the client, its transport and its uploaders raise what they like
        # An error of the upload of a large file is wrapped.
        root = error.__cause__ if isinstance(error, RuntimeError) and error.__cause__ else error
        status = root.response.status_code if isinstance(root, HfHubHTTPError) else None
        reason = " ".join(str(root).split()) or type(root).__name__
        if status in REFUSED:
            raise HubError(
                f"the Hub refuses the token for {repo_id} ({status}): {reason[:300]}. Use one that may write there: "
                "`hf auth login`, or HF_TOKEN"
            ) from None
        raise HubError(
            f"{repo_id}: {constants.ENDPOINT}: {reason[:300]}. No file of this push is published, as all come in one "
            "commit; the same command tries again"
        ) from None
