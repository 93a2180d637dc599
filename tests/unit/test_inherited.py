"""What child processes get of the environment."""

import pytest

from service.inherited import needed


@pytest.mark.parametrize(
    "name",
    [
        "TUNEYARD_DATABASE_URL", "TUNEYARD_TOKEN", "HF_TOKEN", "HUGGING_FACE_HUB_TOKEN", "AWS_SECRET_ACCESS_KEY",
        "OPENAI_API_KEY", "PGPASSWORD", "RAY_AUTH_TOKEN", "MLFLOW_TRACKING_TOKEN", "HTTPS_PROXY", "SOMEBODYS_SECRET", "path",
    ],
)  # fmt: skip
def test_what_may_be_a_secret_stays_here(name: str) -> None:
    assert needed({name: "x", "PATH": "/bin"}) == {"PATH": "/bin"}


@pytest.mark.parametrize(
    "name",
    [
        "PATH",
        "HOME",
        "PYTHONPATH",
        "LC_ALL",
        "CUDA_VISIBLE_DEVICES",
        "NCCL_DEBUG",
        "RAY_AUTH_TOKEN_PATH",
        "TUNEYARD_WORKER_CACHE",
    ],
)
def test_what_programs_need_is_handed_on(name: str) -> None:
    assert needed({name: "x"}) == {name: "x"}


def test_more_is_handed_on_where_it_is_named() -> None:
    held = {"AWS_PROFILE": "a", "AWS_REGION": "b", "HTTPS_PROXY": "c", "HF_TOKEN": "d"}
    assert needed(held, ["AWS_*", "HTTPS_PROXY"]) == {"AWS_PROFILE": "a", "AWS_REGION": "b", "HTTPS_PROXY": "c"}
