"""Serve a run over HTTP: python scripts/examples/serve.py runs/quickstart

It takes a JSON list of inputs and returns the list of their predictions:
    curl 127.0.0.1:8000/predict --json '["my card never arrived", "thank you"]'
"""

import argparse
from threading import Lock
from typing import Annotated, Any

import uvicorn
from fastapi import Body, FastAPI, HTTPException

import nlp_ft


def app_of(run: nlp_ft.Run) -> FastAPI:
    """Make the application that answers with the predictions of a run."""
    app, computing = FastAPI(), Lock()

    @app.post("/predict")
    def predict(inputs: Annotated[list[Any], Body()]) -> list[Any]:
        try:
            # One at a time: FastAPI calls this in several threads, but one prediction uses all cores, or the GPU.
            with computing:
                predictions: list[Any] = run.predict(inputs)
        except nlp_ft.NlpFtError as error:
            raise HTTPException(422, str(error)) from None
        return predictions

    return app


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description="Serve a run over HTTP.")
    parser.add_argument("run", help="run folder")
    parser.add_argument("--engine", help="openvino, onnxruntime or auto: an export of the run; else the run itself")
    parser.add_argument("--host", default="127.0.0.1")
    parser.add_argument("--port", type=int, default=8000)
    options = parser.parse_args()
    run = nlp_ft.load(options.run, engine=options.engine)
    run.trained  # noqa: B018  # loads the model now, not for the first request
    uvicorn.run(app_of(run), host=options.host, port=options.port)
