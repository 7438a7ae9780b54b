"""Checkpoints: all that a run needs to continue, written so that a kill at any moment loses none of it.

    run/checkpoint/
      00000001-images-0.bin     images of the replay from row 0 on, as the file's name says
      00000002-images-500.bin   each save writes only the rows added since, so the ring's size costs nothing
      00000001-state.pt
      00000001.json             the manifest: name, size and SHA-256 of every file of this checkpoint
      00000002-state.pt
      00000002.json

The rename of a manifest is the one moment at which a checkpoint comes to be: a file that no manifest names does
not count, and the next save removes it. The two newest checkpoints are kept and share the images that both need.
Loading compares every byte with the manifest, takes the older checkpoint when the newer one is damaged, and
never executes what it reads.

Training waits only until the operating system has taken the bytes; a thread then hashes them and waits for the
disk, which takes most of the time.

A replay whose images lie in a file is written here too: by the time of a crash that file has moved on, and rows
of after the checkpoint have taken the place of rows of before it.
"""

from __future__ import annotations

import hashlib
import io
import json
import os
import re
import shutil
import warnings
import zipfile
from collections import OrderedDict
from collections.abc import Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from pixelcontrol import __version__
from pixelcontrol.errors import RunError
from pixelcontrol.machine import ran_out_of_memory
from pixelcontrol.rundir import sync_directory
from pixelcontrol.storage import available_ram_bytes
from pixelcontrol.types import Replay

FORMAT = 5
"""Version of what is described above; raised whenever older files can no longer be read or mean something else."""

# Images are written and read in files of this size at most, so that the ring is never held twice.
IMAGE_FILE_BYTES = 64 * 1024**2

# What must stay free beside the state and the images: the manifest, and what the file system takes for itself.
SPARE_BYTES = 1024**2

# Far beyond the manifest of any ring.
LARGEST_MANIFEST_BYTES = 64 * 1024**2

OUR_FILES = re.compile(r"(\d{8})(\.json|\.json\.tmp|-state\.pt|-images-\d+\.bin)")

CONTENT = {"state", "replay", "images_shape"}
"""What a state file holds: the run's state; the replay but for its images; the shape of those."""


class CheckpointError(RunError):
    """A checkpoint cannot be used: says where it lies, why, and what to do."""

    def __init__(self, path: Path, reason: str, remedy: str) -> None:
        super().__init__(f"{path}: {reason}; {remedy}")


class CheckpointNotSaved(RunError):
    """The disk did not take a checkpoint. The earlier ones are intact, and training can go on."""


class CheckpointDamaged(UserWarning):
    """The newest checkpoint is damaged, and the one before it was loaded."""


class _Damaged(Exception):
    """A file is missing, or is not what its manifest says."""


@dataclass(frozen=True)
class _File:
    name: str
    size: int
    sha256: str = ""  # empty until the file is on the disk


@dataclass(frozen=True)
class _Images:
    """A file of images: the rows from `first_row` to before `end_row`, counted since the run began."""

    first_row: int
    end_row: int
    file: _File


@dataclass(frozen=True)
class _Manifest:
    """What belongs to one checkpoint; no images where no replay is kept."""

    generation: int
    state: _File
    images: tuple[_Images, ...]

    def names(self) -> set[str]:
        return {_manifest_name(self.generation), self.state.name, *(part.file.name for part in self.images)}


class Checkpoints:
    """The checkpoints of one run, and how far the images of its replay are written.

    Saving belongs to the one process that trains in this directory (see `rundir.RunLock`). Loading changes no
    file and needs no lock.
    """

    def __init__(self, run_dir: Path) -> None:
        """Keep checkpoints in the folder `checkpoint` of `run_dir`; touches no file yet."""
        self.directory = run_dir / "checkpoint"
        self._newest: _Manifest | None = None
        # The files that hold the images of the replay in memory, as far as they are written. None where the newest
        # checkpoint's replay is not the one in memory: then all of it is written anew.
        self._images: tuple[_Images, ...] = ()
        self._thread = ThreadPoolExecutor(max_workers=1)
        self._under_way: Future[None] | None = None

    def images_bytes(self) -> int:
        """Return how much of a replay is kept already."""
        return sum(path.stat().st_size for path in self.directory.glob("*-images-*.bin"))

    def exist(self) -> bool:
        """Return whether this run ever saved a checkpoint, damaged or not."""
        return bool(self._generations())

    def save(self, state: Mapping[str, Any], replay: Replay | None) -> None:
        """Write a checkpoint, and wait until it counts: `begin_save` and `finish_save` in one."""
        self.begin_save(state, replay)
        self.finish_save()

    def begin_save(self, state: Mapping[str, Any], replay: Replay | None) -> None:
        """Write a checkpoint that counts after `finish_save`, and remove what only the last but one needed.

        Finishes the save before, if it is still under way. Once this returns, `state` and `replay` may change.

        Args:
            state: dicts, lists and tuples of tensors, numbers, strings, bools and None.
            replay: kept too, its images incrementally; None keeps none.

        Raises:
            CheckpointNotSaved: the disk is full, read-only or gone; earlier checkpoints are intact, and nothing
                of this one is left behind.
            CheckpointError: the directory holds checkpoints that were not loaded: they are another run's.
            TypeError: `state` holds something that could not be loaded again; names where.
        """
        self.finish_save()
        content = {
            "state": state,
            "replay": None if replay is None else replay.state_dict(),
            "images_shape": None if replay is None else list(replay.images.shape),
        }
        _require_loadable(content, "checkpoint")
        buffer = io.BytesIO()
        torch.save(content, buffer)
        generation = self._next_generation()
        with self._given_up_if_the_disk_fails(generation):
            if not self.directory.exists():
                self.directory.mkdir()
                sync_directory(self.directory.parent)
            self._remove_unfinished(generation)
            images = () if replay is None else self._write_images(generation, replay)
            # Released here: a failed write's traceback would keep the view, and Python 3.12.0 and 3.12.1 crash as
            # they collect one (CPython's issue 111049).
            with buffer.getbuffer() as whole:
                state_file = self._write(f"{generation:08d}-state.pt", whole)
        self._under_way = self._thread.submit(self._complete, _Manifest(generation, state_file, images))

    def finish_save(self) -> None:
        """Wait until the save under way counts, if there is one.

        Raises:
            CheckpointNotSaved: as `begin_save`.
        """
        under_way, self._under_way = self._under_way, None
        if under_way is not None:
            under_way.result()

    def load(
        self, replay: Replay | None = None, expected: Mapping[str, Any] | None = None, remedy: str = ""
    ) -> dict[str, Any]:
        """Return the state of the newest whole checkpoint, its tensors on the CPU.

        Args:
            replay: filled with what was kept; stays empty when nothing was.
            expected: parts of the state that must be as they are here, if it has them.
            remedy: what to do where they are not.

        Raises:
            CheckpointError: there is no whole checkpoint, or it is another program's, another version's, of
                a replay of another shape, or not as expected. Nothing of it was executed.

        Warns:
            CheckpointDamaged: the newest checkpoint is damaged, and the one before it was loaded.
        """
        damages: list[str] = []
        for generation in sorted(self._generations(), reverse=True):
            try:
                manifest = self._read_manifest(generation)
                content = self._read_state(manifest)
                for name, value in (expected or {}).items():
                    if (saved := content["state"].get(name, value)) != value:
                        raise CheckpointError(
                            self.directory,
                            f"it was saved with {name} {saved}, and here it is {value}",
                            remedy,
                        )
                if replay is not None and content["replay"] is not None:
                    self._restore(replay, content, manifest)
            except _Damaged as damage:
                damages.append(str(damage))
                continue
            if damages:
                message = f"{self.directory}: {'; '.join(damages)}; the checkpoint before was loaded instead"
                warnings.warn(message, CheckpointDamaged, stacklevel=2)
            self._newest = manifest
            self._images = () if replay is None else manifest.images
            return content["state"]
        if damages:
            remedy = "copy whole files back, or, where only images are damaged, resume with --keep-replay no"
            raise CheckpointError(self.directory, "; ".join(damages), remedy)
        raise CheckpointError(
            self.directory, "no checkpoint here", "name the directory of a run that saved one"
        )

    def _names(self) -> set[str]:
        if not self.directory.is_dir():
            return set()
        return {path.name for path in self.directory.iterdir() if OUR_FILES.fullmatch(path.name)}

    def _generations(self) -> list[int]:
        return [int(name.removesuffix(".json")) for name in self._names() if name.endswith(".json")]

    def _remove(self, names: set[str]) -> None:
        # Manifests first, so that none names a file that is gone.
        for name in sorted(names, key=lambda name: not name.endswith(".json")):
            (self.directory / name).unlink()

    def _next_generation(self) -> int:
        generations = self._generations()
        if generations and self._newest is None:
            raise CheckpointError(
                self.directory,
                "holds the checkpoints of another run",
                "resume that, or choose a new directory",
            )
        # The newest may have been deleted while training went on: its number is not used again.
        return 1 + max([*generations, self._newest.generation if self._newest else 0])

    def _complete(self, written: _Manifest) -> None:
        """Make a checkpoint of files that are written; runs in the thread."""
        generation = written.generation
        with self._given_up_if_the_disk_fails(generation):
            images = tuple(replace(part, file=self._synced(part.file)) for part in written.images)
            manifest = _Manifest(generation, self._synced(written.state), images)
            name = _manifest_name(generation)
            content = _sealed({"format": FORMAT, "pixelcontrol": __version__, **asdict(manifest)})
            self._synced(self._write(f"{name}.tmp", memoryview(content)))
            sync_directory(self.directory)
            (self.directory / f"{name}.tmp").rename(self.directory / name)
            sync_directory(self.directory)
        kept = manifest.names() | (self._newest.names() if self._newest else set())
        self._newest, self._images = manifest, manifest.images
        with suppress(OSError):  # the checkpoint stands; the next save removes what stays now
            self._remove(self._names() - kept)

    @contextmanager
    def _given_up_if_the_disk_fails(self, generation: int) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            with suppress(OSError):  # the next save removes what cannot be removed now
                self._remove_unfinished(generation)
            earlier = "earlier checkpoints are intact" if self._newest else "there is none yet"
            raise CheckpointNotSaved(
                f"{self.directory}: a checkpoint could not be saved: {error.strerror or error}; {earlier}, and "
                "saving works again once the disk does"
            ) from error

    def _remove_unfinished(self, generation: int) -> None:
        """Remove what a save of this number left behind when it failed or was killed."""
        self._remove({name for name in self._names() if name.startswith(f"{generation:08d}")})

    def _write_images(self, generation: int, replay: Replay) -> tuple[_Images, ...]:
        """Write the rows that no file holds yet; return the files that together hold the ring."""
        oldest_row = max(0, replay.rows_added - replay.rows)
        images = [part for part in self._images if part.end_row > oldest_row]
        if not all((self.directory / part.file.name).exists() for part in images):
            images = []  # deleted while training went on: all is written anew
        row = images[-1].end_row if images else oldest_row
        most_rows = max(1, IMAGE_FILE_BYTES // replay.images[0].nbytes)
        while row < replay.rows_added:
            # a file ends where the ring does: what it holds is one piece of memory, and needs no copy on a CPU
            slot = row % replay.rows
            count = min(most_rows, replay.rows - slot, replay.rows_added - row)
            block = replay.images[slot : slot + count].cpu().flatten().numpy()
            file = self._write(f"{generation:08d}-images-{row}.bin", block.data)
            images.append(_Images(row, row + count, file))
            row += count
        return tuple(images)

    def _write(self, name: str, data: memoryview) -> _File:
        """Hand a file to the operating system."""
        free = shutil.disk_usage(self.directory).free
        if free < data.nbytes + SPARE_BYTES:
            raise OSError(f"{name} takes {data.nbytes / 1e6:.1f} MB and {free / 1e6:.1f} MB are free")
        with (self.directory / name).open("wb") as file:
            file.write(data)
        return _File(name, data.nbytes)

    def _synced(self, file: _File) -> _File:
        """Hash a file that was written, and wait until it is on the disk; others are returned as they are."""
        if file.sha256:
            return file
        with (self.directory / file.name).open("rb") as data:
            digest = hashlib.file_digest(data, "sha256").hexdigest()
            os.fsync(data.fileno())
        return replace(file, sha256=digest)

    def _read_manifest(self, generation: int) -> _Manifest:
        path = self.directory / _manifest_name(generation)
        data = self._read(path.name, LARGEST_MANIFEST_BYTES)
        try:
            content = json.loads(data)
            if data != _sealed({key: content[key] for key in content if key != "sha256"}):
                raise _Damaged(f"{path.name} has other content than was saved")
            if content["format"] != FORMAT:
                raise CheckpointError(
                    path,
                    f"has format {content['format']}, of pixelcontrol {content['pixelcontrol']}; "
                    f"pixelcontrol {__version__} reads format {FORMAT}",
                    "use the version that wrote it",
                )
            images = [
                _Images(part["first_row"], part["end_row"], _checked_file(**part["file"]))
                for part in content["images"]
            ]
            return _Manifest(generation, _checked_file(**content["state"]), tuple(images))
        except (ValueError, TypeError, KeyError, AttributeError, RecursionError) as error:
            raise _Damaged(f"{path.name} is not a manifest of this program") from error

    def _read_state(self, manifest: _Manifest) -> dict[str, Any]:
        data = io.BytesIO(self._read_whole(manifest.state))
        try:
            # torch would unpack a small file into as much memory as it claims to hold.
            if any(entry.compress_type != zipfile.ZIP_STORED for entry in zipfile.ZipFile(data).infolist()):
                raise ValueError("it is compressed")
            data.seek(0)
            content = torch.load(data, map_location="cpu", weights_only=True)
            if set(content) != CONTENT:
                raise ValueError(f"it holds {set(content)} instead of {CONTENT}")
        except Exception as error:  # torch raises whatever it likes, by what is wrong
            path = self.directory / manifest.state.name
            if ran_out_of_memory(error):
                remedy = "free some, or load only checkpoints that you trust"
                raise CheckpointError(path, "memory ran out while it was read", remedy) from error
            raise CheckpointError(
                path,
                "this program did not write it; it was refused, and nothing in it was executed",
                "load only checkpoints that you trust",
            ) from error
        return content

    def _restore(self, replay: Replay, content: Mapping[str, Any], manifest: _Manifest) -> None:
        """Fill the replay. Older rows of the first file are overwritten in the ring by those that follow."""
        shape = tuple(content["images_shape"])
        # the ring of a run that was lengthened has more rows, which come after those that were kept
        longer = content["replay"]["rows_added"] <= shape[0] <= replay.rows
        if shape[1:] != replay.images.shape[1:] or not (longer or shape[0] == replay.rows):
            raise CheckpointError(
                self.directory,
                f"the kept replay has images of shape {shape}, and this run's {tuple(replay.images.shape)}",
                "resume with the settings it was saved with, or with --keep-replay no",
            )
        row = max(0, content["replay"]["rows_added"] - replay.rows)
        if manifest.images:
            row = min(row, manifest.images[0].first_row)
        for part in manifest.images:
            slot = row % replay.rows
            place = replay.images[slot : slot + part.end_row - row]
            if part.first_row != row or part.file.size != place.nbytes or not place.nbytes:
                raise _Damaged(f"{part.file.name} holds other rows than its place in the replay needs")
            data = torch.frombuffer(self._read_whole(part.file), dtype=torch.uint8)
            place.copy_(data.view(place.shape))
            row = part.end_row
        if row != content["replay"]["rows_added"]:
            raise _Damaged(f"{_manifest_name(manifest.generation)} names too few images")
        replay.load_state_dict(content["replay"])

    def _read(self, name: str, largest: int) -> bytearray:
        try:
            with (self.directory / name).open("rb") as file:
                size = os.fstat(file.fileno()).st_size
                if size > largest:
                    raise _Damaged(f"{name} has {size} bytes, and {largest} are the most that it can have")
                if size > (free := available_ram_bytes()):
                    raise CheckpointError(
                        self.directory / name,
                        f"it has {size / 1e9:.1f} GB, and {free / 1e9:.1f} GB of memory are free",
                        "free some",
                    )
                data = bytearray(size)
                file.readinto(data)
                return data
        except OSError as error:
            raise _Damaged(f"{name} cannot be read: {error.strerror}") from error

    def _read_whole(self, file: _File) -> bytearray:
        """Read a file and compare it with its manifest, which may be lying about the size as well."""
        data = self._read(file.name, file.size)
        if len(data) != file.size or hashlib.sha256(data).hexdigest() != file.sha256:
            raise _Damaged(f"{file.name} has other content than was saved")
        return data


def _manifest_name(generation: int) -> str:
    return f"{generation:08d}.json"


def _sealed(content: Mapping[str, Any]) -> bytes:
    """Return JSON that carries its own SHA-256, so that a flipped bit in a manifest is found as well."""
    plain = json.dumps(content, indent=1, sort_keys=True)
    seal = hashlib.sha256(plain.encode()).hexdigest()
    return json.dumps({"sha256": seal, **content}, indent=1, sort_keys=True).encode()


def _checked_file(name: str, size: int, sha256: str) -> _File:
    """Take what a manifest says of a file, unless it points elsewhere.

    Raises:
        TypeError or ValueError: this program would not have written it.
    """
    if not OUR_FILES.fullmatch(name) or not isinstance(size, int):
        raise ValueError(name)
    return _File(name, size, sha256)


def _require_loadable(value: Any, where: str) -> None:
    """Refuse what `torch.load(weights_only=True)` would refuse, while it can still be mended.

    Raises:
        TypeError: names the place and the type.
    """
    if type(value) in (dict, OrderedDict):
        for key, part in value.items():
            _require_loadable(key, f"a key of {where}")
            _require_loadable(part, f"{where}[{key!r}]")
    elif type(value) in (list, tuple):
        for index, part in enumerate(value):
            _require_loadable(part, f"{where}[{index}]")
    elif type(value) not in (Tensor, torch.nn.Parameter, int, float, bool, str, type(None)):
        raise TypeError(
            f"{where} is a {type(value).__qualname__}; a checkpoint holds dicts, lists and tuples of tensors, "
            "numbers, strings, bools and None: convert it"
        )
