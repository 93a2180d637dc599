"""What `kubectl kustomize` makes of a folder of docker/kubernetes, for as much of it as is used there."""

from pathlib import Path
from typing import Any

import jsonpatch
import yaml

Manifest = dict[str, Any]
_KNOWN = {"apiVersion", "kind", "namespace", "resources", "components", "patches"}
_CLUSTER_WIDE = {"Namespace"}


def kustomized(folder: Path) -> list[Manifest]:
    """The manifests of a folder with a kustomization: its resources in order, patched and put into its namespace."""
    kustomization = yaml.safe_load((folder / "kustomization.yaml").read_text())
    unknown = kustomization.keys() - _KNOWN
    if unknown:
        raise ValueError(f"{folder.name} uses {sorted(unknown)}, which is not applied here: extend tests/kustomized.py.")
    manifests = [manifest for name in kustomization["resources"] for manifest in _resource(folder / name)]
    for name in kustomization.get("components", ()):  # those used here add resources, and change none
        manifests += kustomized(folder / name)
    for patch in kustomization.get("patches", ()):
        operations = patch["patch"] if "patch" in patch else (folder / patch["path"]).read_text()
        manifests = _patched(manifests, patch["target"], yaml.safe_load(operations))
    if "namespace" in kustomization:
        for manifest in manifests:
            if manifest["kind"] not in _CLUSTER_WIDE:
                manifest["metadata"]["namespace"] = kustomization["namespace"]
    return manifests


def _resource(path: Path) -> list[Manifest]:
    return kustomized(path) if path.is_dir() else [manifest for manifest in yaml.safe_load_all(path.read_text()) if manifest]


def _patched(manifests: list[Manifest], target: dict[str, str], operations: list[dict[str, Any]]) -> list[Manifest]:
    """Apply a JSON patch (RFC 6902) to what it is meant for, which must be there."""
    aimed_at = [manifest for manifest in manifests if _is_target(manifest, target)]
    if not aimed_at:
        raise ValueError(f"no manifest is {target}")
    patch = jsonpatch.JsonPatch(operations)
    return [patch.apply(manifest) if manifest in aimed_at else manifest for manifest in manifests]


def _is_target(manifest: Manifest, target: dict[str, str]) -> bool:
    group, _, version = manifest["apiVersion"].rpartition("/")
    named = {"group": group, "version": version, "kind": manifest["kind"], "name": manifest["metadata"]["name"]}
    return all(named[key] == wanted for key, wanted in target.items())
