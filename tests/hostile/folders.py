"""Model folders that would have something run or read which nobody asked for."""

import json
import shutil
from pathlib import Path


def make_hostile_models(root: Path, tiny: Path, outside: Path) -> None:
    """Beside the model `tiny`; `outside` is a folder that no model root holds."""
    shutil.copytree(tiny, outside)
    (root / "linked").symlink_to(outside)
    leaky = _copied(tiny, root / "leaky")
    (leaky / "model.safetensors").unlink()
    (leaky / "model.safetensors").symlink_to(outside / "model.safetensors")
    _configured(_copied(tiny, root / "coded"), auto_map={"AutoModel": "modeling.Evil"})
    (root / "coded" / "modeling.py").write_text("raise SystemExit('it ran')\n")
    _configured(_copied(tiny, root / "kernel"), attn_implementation="evil/attention")
    pickled = _copied(tiny, root / "pickled")
    (pickled / "model.safetensors").rename(pickled / "pytorch_model.bin")
    adapted = _copied(tiny, root / "adapted")
    (adapted / "adapter_config.json").write_text(json.dumps({"base_model_name_or_path": str(outside), "peft_type": "LORA"}))
    _weights(_copied(tiny, root / "bomb"), b"[" * 20_000_000)
    _weights(_copied(tiny, root / "nested"), b'{"a":' * 100_000)


def _copied(tiny: Path, folder: Path) -> Path:
    shutil.copytree(tiny, folder)
    return folder


def _configured(folder: Path, **changes: object) -> None:
    path = folder / "config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))


def _weights(folder: Path, header: bytes) -> None:
    (folder / "model.safetensors").write_bytes(len(header).to_bytes(8, "little") + header)
