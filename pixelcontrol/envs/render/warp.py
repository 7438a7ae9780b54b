"""The `warp` renderer: N worlds drawn by a few launches on the CPU or a CUDA device, without OpenGL.

What the kernels do, and by which rules, stands in `kernels.py`; this is their memory and the way in and out.
"""

from __future__ import annotations

import math
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from typing import Any

import numpy as np
import torch
import warp as wp
from jaxtyping import UInt8
from torch import Tensor

from pixelcontrol.envs.render import kernels, light, rays, texture
from pixelcontrol.envs.render.scene import Scene

_GRID = 200  # mjMAXPLANEGRID: how many cells an infinite plane has along an axis, and a finite one at most


class WarpRenderer:
    """Turns the payload rows of `Scene.pack` into images; see `pixelcontrol.types.Renderer`.

    Unusual: a world that several cameras see is drawn like several worlds, whose images then lie side by side.
    """

    name = "warp"

    def __init__(self, scene: Scene, num_worlds: int, image_size: tuple[int, int], device: str) -> None:
        """Prepare to draw `num_worlds` images of `image_size` = (height, width) on torch `device`.

        The first renderer of a machine compiles the kernels, which takes seconds and is said; later ones load
        them from Warp's cache.

        Raises:
            ValueError: Warp cannot use this GPU.
        """
        wp.config.log_level = wp.LOG_ERROR
        with nullcontext() if torch.cuda.is_available() else _silence():  # Warp warns that there is no driver
            wp.init()
        if device.startswith("cuda") and not wp.is_cuda_available():
            raise ValueError(
                f"Warp {wp.__version__} finds no GPU, though PyTorch may: it needs a driver for CUDA 13 or newer; "
                "update the driver, or choose --renderer opengl or --device cpu"
            )
        cameras, row_size = scene.payload_shape
        self.image_shape = (scene.channels, *image_size)
        self._device = torch.device(device)
        self._depth = scene.depth
        self._cameras = cameras
        self._pictures = num_worlds * cameras
        self._rows = torch.zeros(self._pictures, row_size, device=self._device)
        if self._device.type == "cuda":
            self._staging = torch.zeros_like(self._rows, device="cpu").pin_memory()
            self._copied = torch.cuda.Event()
            # Warp may not be given PyTorch's default stream: that is CUDA's legacy stream, which waits for all.
            self._stream = torch.cuda.Stream(self._device)
        with wp.ScopedDevice(str(self._device)):
            _load_kernels()
            self._put_fixed(scene)
            self._put_worlds(scene)
            # all this went to Warp's own stream, for which the first picture's does not wait
            wp.synchronize_device()

    def images(self, payload: np.ndarray) -> UInt8[Tensor, "worlds channels height width"]:
        """Draw float32 (num_worlds, *scene.payload_shape) rows. The result is a fresh tensor on `device`."""
        channels, height, width = self.image_shape
        pictures = torch.empty(
            (self._pictures, channels // self._cameras, height, width), dtype=torch.uint8, device=self._device
        )
        images = pictures.view(-1, *self.image_shape)
        rows = torch.from_numpy(payload).reshape(self._rows.shape)
        if self._device.type == "cpu":
            self._rows.copy_(rows)
            self._draw(pictures)
            return images

        self._copied.synchronize()  # the last copy has left the staging buffer
        self._staging.copy_(rows)
        now = torch.cuda.current_stream(self._device)
        self._stream.wait_stream(now)
        side = wp.stream_from_torch(self._stream)
        with torch.cuda.stream(self._stream), wp.ScopedStream(side, sync_enter=False):
            self._rows.copy_(self._staging, non_blocking=True)
            self._copied.record()
            self._draw(pictures)
        now.wait_stream(self._stream)
        return images

    def _draw(self, pictures: Tensor) -> None:
        """Launch the kernels on the rows."""
        _, height, width = self.image_shape
        rows = self._stage.payload

        def launch(kernel: Any, size: tuple[int, ...], *inputs: Any) -> None:
            wp.launch(kernel, dim=size, inputs=inputs, device=rows.device)

        launch(
            kernels.look,
            (self._pictures,),
            *(rows, self._first_geom, *self._shadow, height, width),
            *(self._worlds, self._paint.views, self._paint.lights),
        )
        launch(
            kernels.place,
            self._stage.shapes.shape,
            *(rows, self._worlds, self._paint.views, self._materials, self._grid),
            *(self._solids, self._first_geom, self._stage, self._paint.coats),
        )
        launch(
            kernels.find,
            self._codes.shape,
            *(self._worlds, self._paint.views, self._stage, height, width, self._codes),
        )
        launch(
            kernels.shade,
            (self._pictures, height, width),
            *(self._worlds, self._stage, self._paint, self._codes, self._depth, wp.from_torch(pictures)),
        )

    def _put_fixed(self, scene: Scene) -> None:
        """Copy what never changes to the device."""
        materials = scene.materials
        self._paint = kernels.Paint()
        self._materials = _struct_array(
            kernels.Material,
            texture=materials.texture,
            flat=np.array([i >= 0 and not scene.textures[i][0] for i in materials.texture], bool),
            uniform=materials.uniform,
            repeat=materials.repeat,
        )
        self._shadow = scene.shadow_clip, scene.shadow_scale
        self._grid = wp.array(_plane_grids(scene), dtype=wp.vec3)
        self._paint.skybox = scene.skybox
        texels, textures = _pack_textures(scene.textures)
        self._paint.texels = wp.array(texels, dtype=wp.uint32)
        self._paint.textures = _struct_array(
            texture.Texture,
            **dict(zip(("is_cube", "width", "height", "levels", "start"), textures, strict=True)),
        )

        self._mesh_memory = [
            wp.Mesh(wp.array(mesh.vertices, dtype=wp.vec3), wp.array(mesh.faces.ravel(), dtype=wp.int32))
            for mesh in scene.meshes
        ]
        low = np.array([mesh.vertices.min(axis=0) for mesh in scene.meshes], np.float32).reshape(-1, 3)
        high = np.array([mesh.vertices.max(axis=0) for mesh in scene.meshes], np.float32).reshape(-1, 3)
        corners = [mesh.faces.size for mesh in scene.meshes]
        self._solids = _struct_array(
            kernels.Solid,
            data=np.array([mesh.id for mesh in self._mesh_memory], np.uint64),
            middle=(low + high) / 2,
            half=(high - low) / 2,
            corner=np.cumsum([0, *corners])[:-1],
            wrapped=np.array([mesh.texture is not None for mesh in scene.meshes], bool),
        )
        normals = [np.zeros((0, 3), np.float32), *(mesh.normals.reshape(-1, 3) for mesh in scene.meshes)]
        self._paint.mesh_normals = wp.array(np.concatenate(normals), dtype=wp.vec3)
        places = np.zeros((len(self._paint.mesh_normals), 2), np.float32)
        for mesh, end in zip(scene.meshes, np.cumsum(corners), strict=True):
            if mesh.texture is not None:
                places[end - mesh.faces.size : end] = mesh.texture.reshape(-1, 2)
        self._paint.mesh_texture = wp.array(places, dtype=wp.vec2)

    def _put_worlds(self, scene: Scene) -> None:
        """Make room for what each picture is made from."""
        worlds, geoms, lights = self._pictures, scene.max_geoms, scene.max_lights
        views = 2 + lights
        _, height, width = self.image_shape
        self._first_geom = scene.first_geom
        self._worlds = wp.zeros(worlds, dtype=rays.World)
        self._paint.views = wp.zeros((worlds, views), dtype=rays.View)
        self._paint.lights = wp.zeros((worlds, lights), dtype=light.Light)
        self._paint.coats = wp.zeros((worlds, geoms), dtype=kernels.Coat)
        self._stage = rays.Stage()
        rows, columns, start = scene.fields.T
        self._stage.fields = _struct_array(rays.Field, rows=rows, columns=columns, start=start)
        self._stage.payload = wp.from_torch(self._rows)
        self._stage.shapes = wp.zeros((worlds, geoms), dtype=rays.Shape)
        self._stage.bounds = wp.zeros((worlds, views, geoms), dtype=wp.vec4)
        self._stage.starts = wp.zeros((worlds, views, geoms), dtype=wp.vec3)
        self._codes = wp.zeros((worlds, height + 1, width + 1), dtype=wp.int32)


@contextmanager
def _silence() -> Iterator[None]:
    """Let what libraries write to stderr past Python vanish."""
    kept, nothing = os.dup(2), os.open(os.devnull, os.O_WRONLY)
    try:
        os.dup2(nothing, 2)
        yield
    finally:
        os.dup2(kept, 2)
        os.close(kept)
        os.close(nothing)


def _load_kernels() -> None:
    """Compile the kernels for the current Warp device, or load them; say so if it took long."""
    start = time.monotonic()
    device = wp.get_device()
    wp.load_module(kernels, device=device)
    seconds = time.monotonic() - start
    if seconds > 1.0:
        print(
            f"renderer warp: compiled its kernels for {device} in {seconds:.0f} s (once per machine)",
            flush=True,
        )


def _struct_array(struct: Any, **fields: np.ndarray) -> Any:
    """Put arrays whose first axis is the element into a Warp array of structs; fields not named are zero."""
    count = len(next(iter(fields.values())))
    elements = np.zeros(count, dtype=struct.numpy_dtype())
    for name, values in fields.items():
        elements[name] = values
    return wp.array(elements, dtype=struct)


def _plane_grids(scene: Scene) -> np.ndarray:
    """The grids on which planes are lit, float32 (planes, 2, 3) (render_context.c, makePlane).

    For each axis: half width, width of the first and last cell, width of the others.
    """
    grids = np.zeros((len(scene.planes), 2, 3), np.float32)
    for grid, (*halves, spacing), repeats in zip(grids, scene.planes, scene.plane_repeat, strict=True):
        for axis, (half, repeat) in enumerate(zip(halves, repeats, strict=True)):
            if half > 0:
                step = max(spacing, half / (_GRID - 2))
                cells = math.floor(half / step) // 2 * 2
                grid[axis] = half, half - cells * step, 2 * step
            else:
                margin = 2 / repeat if repeat > 0 else 2.1 * scene.far / (_GRID - 2)
                cell = (2.1 * scene.far + 2 * margin) / _GRID
                grid[axis] = cell * _GRID / 2, 0, cell
    return grids


def _pack_textures(textures: list[tuple[bool, np.ndarray]]) -> tuple[np.ndarray, np.ndarray]:
    """Put all textures with their mip levels into one uint32 array, a texel a word.

    Returns:
        texels; int32 (5, textures): is it a cube, width, height, number of levels, first texel.
    """
    pool = [np.zeros(0, np.uint32)]
    table = np.zeros((5, len(textures)), np.int32)
    used = 0
    for i, (is_cube, texels) in enumerate(textures):
        _, height, width, _ = texels.shape
        levels = [texels.astype(np.float32)]
        while levels[-1].shape[1:3] != (1, 1):
            levels.append(_halve(levels[-1]))
        table[:, i] = is_cube, width, height, len(levels), used
        for level in levels:
            red, green, blue = np.moveaxis(np.rint(level).astype(np.uint32), -1, 0)
            pool.append((red | green << 8 | blue << 16).ravel())
            used += pool[-1].size
    return np.concatenate(pool), table


def _halve(level: np.ndarray) -> np.ndarray:
    """The next mip level of (faces, height, width, 3): half the size, rounded down, by averages over areas."""
    for axis in (1, 2):
        if level.shape[axis] > 1:
            level = np.moveaxis(_shrink(np.moveaxis(level, axis, 0), level.shape[axis] // 2), 0, axis)
    return level


def _shrink(values: np.ndarray, size: int) -> np.ndarray:
    """Average along the first axis into `size` equal parts, which may begin and end within an element."""
    total = np.concatenate([np.zeros_like(values[:1]), np.cumsum(values, axis=0, dtype=np.float64)])
    edges = np.linspace(0, len(values), size + 1)
    whole = np.minimum(edges.astype(int), len(values) - 1)
    part = (edges - whole).reshape(-1, *[1] * (values.ndim - 1))
    return np.diff(total[whole] + part * values[whole], axis=0) * (size / len(values))
