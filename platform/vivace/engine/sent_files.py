"""What a spec names by a path, sent to the workers through the artifacts, and laid out where it is executed."""

from __future__ import annotations

from pathlib import Path

from vivace.named_paths import absolute_path
from vivace.settings import Settings
from vivace.spec import RunSpec
from vivace.store.artifacts import Artifacts, open_artifacts
from vivace.store.trees import FetchedTrees, let_go_of_trees, references, store_tree
from vivace.tracks.registry import find_track


def sent(spec: RunSpec, settings: Settings, artifacts: Artifacts) -> RunSpec:
    """The same request for workers elsewhere: every file and folder that it names is stored by its hash.

    Where artifacts lie in the home folder, workers share that, and paths stay paths.

    Raises:
        UsageError, VivaceError: a file cannot be read or stored.
        IncompleteError: the store does not answer.
    """
    if settings.artifacts is None:
        return spec.with_absolute_paths()
    track = find_track(spec.track)

    def stored(key: str, text: str) -> str:
        path = Path(absolute_path(text))
        if not path.is_absolute() or not path.exists():
            return text
        return store_tree(artifacts, path, track.files_beside(key, path))

    return spec.with_paths(stored)


def laid_out(spec: RunSpec, settings: Settings) -> RunSpec:
    """A request as it was sent, with what it names on this machine; fetched where it is missing.

    Raises:
        VivaceError: something of it is missing or damaged.
        IncompleteError: the store does not answer.
    """
    if not references(spec.as_json()):
        return spec
    let_go_of_trees()
    most_bytes = int(settings.artifacts_cache_gb * 2**30)
    trees = FetchedTrees(settings.home / "fetched", open_artifacts(settings), most_bytes)
    return spec.with_paths(lambda _key, text: trees.path(text))
