"""What a picture of a dm_control world depends on: fixed things as arrays, moving things as one flat row.

The moving things are MuJoCo's own abstract scene (`mjvScene`), the list of geoms, lights and camera from which
its OpenGL renderer draws. So sites, tendons (a slack one hangs), transparency, lights and whatever a task edits at
the start of an episode (a target's place, size, colour) are in the row by construction, for every task. The fixed
things are those that MuJoCo hands to OpenGL once: textures and how materials wear them, meshes, planes' grids.

Unusual: workers import this module and nothing heavier; it knows NumPy and MuJoCo, no torch, Warp or OpenGL.
And it copies geoms and lights of an `mjvScene` as blocks of memory, which takes 3 microseconds instead of 100.
"""

from __future__ import annotations

import ctypes
import zlib
from dataclasses import dataclass
from typing import Any

import mujoco
import numpy as np

from pixelcontrol.envs.tasks import Cameras, channel_count

# One row: [numbers of geoms and of lights, camera (CAMERA_SIZE), lights (LIGHT_SIZE each), geoms (GEOM_SIZE each),
# heights].
CAMERA_START = 2
CAMERA_SIZE = 13  # position 3, forward 3, up 3, half width and height, and middle, at distance 1
LIGHT_START = CAMERA_START + CAMERA_SIZE
# Position 3, direction 3, attenuation 3, cutoff in degrees, exponent, ambient 3, diffuse 3, specular 3, is it
# directional, does it cast shadows.
LIGHT_SIZE = 22
# Type, data id, category, material id, size 3, position 3, rotation 9 (rows), rgba 4, emission, specular,
# shininess, reflectance.
GEOM_SIZE = 27

_GEOM_INTEGERS = 10  # type, dataid, objtype, objid, category, matid and four more: just before `size`
_GEOM_FLOATS = 23  # size 3, pos 3, mat 9, rgba 4, emission, specular, shininess, reflectance
_LIGHT_POSE = 6  # pos 3, dir 3; then `type`, and an integer more
_LIGHT_SHADE = 14  # attenuation 3, cutoff, exponent, three colours; the 2nd byte after is `castshadow`
_FLAT = 1e-4  # metres by which the box around a height field is higher than its hills, which may be none
_DIRECTIONAL = int(mujoco.mjtLightType.mjLIGHT_DIRECTIONAL)  # a spot light is 0; others are not drawn
_MOST_LIGHTS = 8  # OpenGL's; MuJoCo's renderer asks for more in vain
# What is read once, as by MuJoCo's OpenGL renderer, which however reads it anew with each new model.
_READ_ONCE = (
    "tex_type", "tex_data", "mat_texid", "mat_texuniform", "mat_texrepeat",
    "mesh_vert", "mesh_face", "mesh_normal", "mesh_texcoord", "hfield_nrow", "hfield_ncol",
)  # fmt: skip
_CATENARY_SEGMENTS = 30  # a slack tendon is drawn as a chain of this many capsules


@dataclass(frozen=True)
class Materials:
    """One entry per material, then a last one for geoms that have none.

    Attributes:
        texture: int32 (materials,): index of its texture, or -1.
        uniform: bool (materials,): the texture repeats per metre, not per object.
        repeat: float32 (materials, 2): how often.
    """

    texture: np.ndarray
    uniform: np.ndarray
    repeat: np.ndarray


@dataclass(frozen=True)
class Mesh:
    """One triangle mesh in its own frame.

    Attributes:
        vertices: float32 (vertices, 3).
        faces: int32 (faces, 3).
        normals: float32 (faces, 3, 3): the normal at each corner of each face.
        texture: float32 (faces, 3, 2): where each corner lies in a flat texture; None if the mesh does not say.
    """

    vertices: np.ndarray
    faces: np.ndarray
    normals: np.ndarray
    texture: np.ndarray | None


class Scene:
    """The drawable content of one task, as seen by its cameras; never edits the task's model.

    Attributes:
        channels: of an image, of all cameras together.
        depth: see `__init__`.
        payload_shape: (cameras, length of a row), of the float32 rows that `pack` writes.
        max_lights, max_geoms: how many lights and geoms a row has room for.
        first_geom: where in a row the geoms begin.
        fields: int32 (height fields, 3): rows, columns, where in a row its heights begin, in metres, row by row;
            no rows where no geom has it.
        materials, textures, meshes, planes: what never changes; see the classes above. A texture is
            (is it a cube, uint8 (faces, height, width, 3)); planes are float32 (planes, 3) sizes.
        plane_repeat: float32 (planes, 2), the `repeat` of each plane's material.
        skybox: index of the texture behind everything, or -1.
        far: distance in metres beyond which nothing is drawn.
        shadow_clip: half width in metres of a directional light's shadow.
        shadow_scale: the part of a spot light's cone that receives shadows.
    """

    def __init__(self, physics: Any, camera: Cameras, depth: float = 0.0) -> None:
        """Collect what is drawn.

        Args:
            physics: a dm_control `Physics` (suite or composer).
            camera: of the model's cameras.
            depth: metres up to which a fourth channel of each camera shows distances; 0 for colours alone.

        Raises:
            ValueError: the model has no such camera, or `warp` cannot draw it: see `_refuse_what_is_not_drawn`,
                and `pack` for what is said of its lights.
        """
        model = physics.model.ptr
        self.channels = channel_count(camera, depth)
        self.depth = depth
        self._cameras = camera_ids(model, camera)
        self._snapshot: _Snapshot | None = None
        self._read_once = {name: zlib.crc32(getattr(model, name)) for name in _READ_ONCE}
        snapshot = self._snapshot_of(physics)
        for one in self._cameras:
            scene = snapshot.see(one)
            _refuse_what_is_not_drawn(model, one, scene)

        self.max_geoms = _most_geoms(model)
        self.max_lights = min(1 + model.nlight, _MOST_LIGHTS)  # the head's, and all that may be switched on
        self.first_geom = LIGHT_START + LIGHT_SIZE * self.max_lights
        row = self.first_geom + GEOM_SIZE * self.max_geoms
        grids = np.stack([model.hfield_nrow, model.hfield_ncol], axis=1)
        shown = model.geom_dataid[model.geom_type == mujoco.mjtGeom.mjGEOM_HFIELD]
        grids[~np.isin(np.arange(model.nhfield), shown)] = (
            0  # the quadruped's terrain, where its floor is flat
        )
        ends = row + np.cumsum(grids.prod(axis=1))
        self.fields = np.column_stack([grids, ends - grids.prod(axis=1)]).astype(np.int32)
        self.payload_shape = (len(self._cameras), int(ends[-1]) if len(ends) else row)
        self.materials = _materials(model)
        self.textures = [_texture(model, i) for i in range(model.ntex)]
        skyboxes = np.flatnonzero(model.tex_type == mujoco.mjtTexture.mjTEXTURE_SKYBOX)
        self.skybox = int(skyboxes[0]) if len(skyboxes) else -1
        self.meshes = [_mesh(model, i) for i in range(model.nmesh)]
        is_plane = model.geom_type == mujoco.mjtGeom.mjGEOM_PLANE
        self.planes = model.geom_size[is_plane].astype(np.float32)
        self.plane_repeat = self.materials.repeat[model.geom_matid[is_plane]]
        self.far = float(model.vis.map.zfar * model.stat.extent)
        self.shadow_clip = float(model.vis.map.shadowclip * model.stat.extent)
        self.shadow_scale = float(model.vis.map.shadowscale)

    def pack(self, physics: Any, out: np.ndarray) -> None:
        """Write camera, lights and geoms of the present moment into float32 `out` (*payload_shape).

        `physics` must come from the same task as the one given at construction; its data must be up to date
        with its state, as they are after a dm_control `env.reset()` or `env.step()`.

        Raises:
            RuntimeError: the world shows more geoms or lights than its model had at construction, or it is another
                model with textures or meshes of its own.
            ValueError: it has a light that is neither a spot nor a directional one.
        """
        snapshot = self._snapshot_of(physics)
        for camera, row in zip(self._cameras, out, strict=True):
            snapshot.see(camera)
            self._pack_row(snapshot, row)

    def _pack_row(self, snapshot: _Snapshot, out: np.ndarray) -> None:
        count, shining = snapshot.scene.ngeom, min(snapshot.scene.nlight, _MOST_LIGHTS)
        for what, shown, most in (("geoms", count, self.max_geoms), ("lights", shining, self.max_lights)):
            if shown > most:
                raise RuntimeError(
                    f"the world shows {shown} {what}, {most} were expected at most, as its model had at first: "
                    "use --renderer opengl"
                )
        out[0], out[1] = count, shining
        eye_at = CAMERA_START
        for eyes in (snapshot.eye_position, snapshot.eye_forward, snapshot.eye_up):
            np.add(eyes[0], eyes[1], out=out[eye_at : eye_at + 3])
            out[eye_at : eye_at + 3] *= 0.5
            eye_at += 3
        eye = snapshot.scene.camera[0]
        out[eye_at] = eye.frustum_width / eye.frustum_near  # 0 unless the camera says
        out[eye_at + 1] = 0.5 * (eye.frustum_top - eye.frustum_bottom) / eye.frustum_near
        out[eye_at + 2] = eye.frustum_center / eye.frustum_near
        out[eye_at + 3] = 0.5 * (eye.frustum_top + eye.frustum_bottom) / eye.frustum_near

        lights = out[LIGHT_START : self.first_geom].reshape(self.max_lights, LIGHT_SIZE)
        lights[:shining, :6] = snapshot.light_poses[:shining]
        lights[:shining, 6:20] = snapshot.light_shades[:shining]
        lights[:shining, 20] = snapshot.light_types[:shining]
        lights[:shining, 21] = snapshot.light_shadows[:shining]

        end = self.first_geom + self.max_geoms * GEOM_SIZE
        geoms = out[self.first_geom : end].reshape(self.max_geoms, GEOM_SIZE)
        geoms[:count, 0:2] = snapshot.integers[:count, 0:2]
        geoms[:count, 2:4] = snapshot.integers[:count, 4:6]
        geoms[:count, 4:] = snapshot.floats[:count]

        model = snapshot.model
        for i, (rows, columns, start) in enumerate(self.fields):
            if rows == 0:
                continue
            first, heights = model.hfield_adr[i], out[start : start + rows * columns]
            np.multiply(
                model.hfield_data[first : first + rows * columns], model.hfield_size[i, 2], out=heights
            )
            shown = (geoms[:, 0] == int(mujoco.mjtGeom.mjGEOM_HFIELD)) & (geoms[:, 1] == i)
            geoms[shown, 6] = heights.max() + _FLAT  # rays are followed within the box up to here

    def _snapshot_of(self, physics: Any) -> _Snapshot:
        """MuJoCo's scene of a model. A composer task compiles a new model for each episode."""
        model, data = physics.model.ptr, physics.data.ptr
        if self._snapshot is None or self._snapshot.data is not data:
            for name, known in self._read_once.items():
                if zlib.crc32(getattr(model, name)) != known:
                    raise RuntimeError(
                        f"this episode's model has another {name} than the first, which renderer 'warp' reads "
                        "only once: use --renderer opengl"
                    )
            self._snapshot = _Snapshot(model, data)
        return self._snapshot


def camera_ids(model: mujoco.MjModel, camera: Cameras) -> list[int]:
    """Return the ids of cameras given by id ("0" is one, too) or name.

    Raises:
        ValueError: there is no such camera; the message lists those there are.
    """
    names = [model.camera(i).name for i in range(model.ncam)]
    ids = {str(i): i for i in range(model.ncam)} | {name: i for i, name in enumerate(names)}
    wanted = camera if isinstance(camera, tuple) else (camera,)
    for one in wanted:
        if str(one) not in ids:
            choices = ", ".join(f"{i} ({name})" for i, name in enumerate(names))
            raise ValueError(f"camera {one!r}: this task has {choices or 'no camera'}")
    return [ids[str(one)] for one in wanted]


def _refuse_what_is_not_drawn(model: mujoco.MjModel, camera: int, scene: mujoco.MjvScene) -> None:
    """Say so if what a camera sees is a skin or a flex, such as cloth, or if it sees all in parallel.

    Raises:
        ValueError: it does; or a mesh that says where its corners lie in a flat texture has a cube.
    """
    if scene.camera[0].orthographic:
        name = model.camera(camera).name
        raise ValueError(f"camera {camera} ({name}) is orthographic, which only renderer 'opengl' draws")
    for geom in scene.geoms[: scene.ngeom]:
        if geom.type > int(mujoco.mjtGeom.mjGEOM_MESH):
            kind = mujoco.mjtGeom(geom.type).name.removeprefix("mjGEOM_").lower()
            raise ValueError(f"this task shows a {kind}, which only renderer 'opengl' draws")
        texture = model.mat_texid[geom.matid, mujoco.mjtTextureRole.mjTEXROLE_RGB] if geom.matid >= 0 else -1
        if geom.texcoord and texture >= 0 and model.tex_type[texture] != mujoco.mjtTexture.mjTEXTURE_2D:
            name = model.texture(texture).name
            raise ValueError(
                f"texture {name!r} is a cube, but a mesh that shows it has coordinates in a flat one, "
                'and OpenGL then shows neither: declare it with type="2d"'
            )


def _most_geoms(model: mujoco.MjModel) -> int:
    """Return how many geoms a model can show, those included that are transparent for now."""
    option = mujoco.MjvOption()
    spatial = model.wrap_type[model.tendon_adr] != mujoco.mjtWrap.mjWRAP_JOINT
    parts = (
        (option.geomgroup, model.geom_group, np.ones(model.ngeom)),
        (option.sitegroup, model.site_group, np.ones(model.nsite)),
        (option.tendongroup, model.tendon_group, spatial * np.maximum(model.tendon_num, _CATENARY_SEGMENTS)),
    )
    last = mujoco.mjNGROUP - 1
    return int(sum((shown[np.clip(group, 0, last)] * count).sum() for shown, group, count in parts))


class _Snapshot:
    """An `mjvScene` with NumPy views of the parts that a row copies."""

    def __init__(self, model: mujoco.MjModel, data: mujoco.MjData) -> None:
        self.model, self.data = model, data
        # one more than there can be, so that a row refuses what exceeds it; the layout takes two to be found
        self.scene = mujoco.MjvScene(model, max(2, _most_geoms(model) + 1))
        self._camera = mujoco.MjvCamera()
        self._camera.type = mujoco.mjtCamera.mjCAMERA_FIXED
        self._option = mujoco.MjvOption()
        # dm_control's cameras show everything that is shown by default, but for this.
        self._option.flags[mujoco.mjtVisFlag.mjVIS_RANGEFINDER] = False
        self._perturb = mujoco.MjvPerturb()

        self.eye_position = [eye.pos for eye in self.scene.camera]
        self.eye_forward = [eye.forward for eye in self.scene.camera]
        self.eye_up = [eye.up for eye in self.scene.camera]
        self.light_poses, self.light_shades, self.light_types, self.light_shadows = _light_memory(self.scene)
        self.integers, self.floats = _geom_memory(self.scene)

    def see(self, camera: int) -> mujoco.MjvScene:
        """Bring the scene up to date, as a camera sees it.

        Raises:
            ValueError: it has a light that is neither a spot nor a directional one.
        """
        self._camera.fixedcamid = camera
        everything = mujoco.mjtCatBit.mjCAT_ALL.value
        mujoco.mjv_updateScene(
            self.model, self.data, self._option, self._perturb, self._camera, everything, self.scene
        )
        for light, kind in enumerate(self.light_types[: self.scene.nlight].tolist()):
            if kind > _DIRECTIONAL:
                name = mujoco.mjtLightType(kind).name.removeprefix("mjLIGHT_").lower()
                raise ValueError(
                    f"light {self.scene.lights[light].id} of this task is of type {name}; renderer 'warp' draws "
                    "spot and directional ones, and so does --renderer opengl"
                )
        return self.scene


def _geom_memory(scene: mujoco.MjvScene) -> tuple[np.ndarray, np.ndarray]:
    """View the geoms of a scene as int32 (geoms, 10) and float32 (geoms, 23) without copying.

    Raises:
        RuntimeError: this version of MuJoCo lays out `mjvGeom` differently.
    """
    count, first = len(scene.geoms), scene.geoms[0]
    start = first.size.ctypes.data
    stride = scene.geoms[1].size.ctypes.data - start
    integers = _view(start - 4 * _GEOM_INTEGERS, stride, (count, _GEOM_INTEGERS), np.int32)
    floats = _view(start, stride, (count, _GEOM_FLOATS), np.float32)
    first.type, first.dataid, first.category, first.matid = 1, 2, 3, 4
    first.pos[:], first.mat[:], first.rgba[:] = 5.0, 6.0, 7.0
    first.emission, first.specular, first.shininess, first.reflectance = 8.0, 9.0, 10.0, 11.0
    written = [*integers[0, [0, 1, 4, 5]], *floats[0, 3:]]
    if written != [1, 2, 3, 4] + 3 * [5.0] + 9 * [6.0] + 4 * [7.0] + [8.0, 9.0, 10.0, 11.0]:
        raise RuntimeError(f"mujoco {mujoco.__version__} lays out mjvGeom in an unknown way")
    return integers, floats


def _light_memory(scene: mujoco.MjvScene) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """View the lights of a scene without copying.

    Returns:
        float32 (lights, 6): poses; float32 (lights, 14): attenuation, cone, colours; int32 (lights,): types;
        uint8 (lights,): do they cast shadows.

    Raises:
        RuntimeError: this version of MuJoCo lays out `mjvLight` differently.
    """
    count, first = len(scene.lights), scene.lights[0]
    pose, shade = first.pos.ctypes.data, first.attenuation.ctypes.data
    stride = scene.lights[1].pos.ctypes.data - pose
    poses = _view(pose, stride, (count, _LIGHT_POSE), np.float32)
    shades = _view(shade, stride, (count, _LIGHT_SHADE), np.float32)
    types = _view(pose + 4 * _LIGHT_POSE, stride, (count, 1), np.int32)[:, 0]
    shadows = _view(shade + 4 * _LIGHT_SHADE, stride, (count, 2), np.uint8)[:, 1]
    first.pos[:], first.dir[:], first.type, first.castshadow, first.headlight = 1.0, 2.0, 3, 1, 0
    first.attenuation[:], first.cutoff, first.exponent = 4.0, 5.0, 6.0
    first.ambient[:], first.diffuse[:], first.specular[:] = 7.0, 8.0, 9.0
    written = [*poses[0], *shades[0], types[0], shadows[0]]
    expected = 3 * [1.0] + 3 * [2.0] + 3 * [4.0] + [5.0, 6.0] + 3 * [7.0] + 3 * [8.0] + 3 * [9.0] + [3, 1]
    if written != expected:
        raise RuntimeError(f"mujoco {mujoco.__version__} lays out mjvLight in an unknown way")
    return poses, shades, types, shadows


def _view(address: int, stride: int, shape: tuple[int, int], dtype: type) -> np.ndarray:
    """View neighbouring members of an array of C structures, `stride` bytes long, as rows and columns."""
    size = np.dtype(dtype).itemsize
    block: Any = (ctypes.c_byte * ((shape[0] - 1) * stride + size * shape[1])).from_address(address)
    return np.ndarray(shape, dtype, block, strides=(stride, size))


def _materials(model: mujoco.MjModel) -> Materials:
    rgb = model.mat_texid[:, mujoco.mjtTextureRole.mjTEXROLE_RGB]
    return Materials(
        texture=np.append(rgb, -1).astype(np.int32),
        uniform=np.append(model.mat_texuniform, False).astype(bool),
        repeat=np.vstack([model.mat_texrepeat, [[0.0, 0.0]]]).astype(np.float32),
    )


def _texture(model: mujoco.MjModel, index: int) -> tuple[bool, np.ndarray]:
    width, height = int(model.tex_width[index]), int(model.tex_height[index])
    channels, start = int(model.tex_nchannel[index]), int(model.tex_adr[index])
    texels = model.tex_data[start : start + width * height * channels].reshape(height, width, channels)[
        ..., :3
    ]
    if model.tex_type[index] == mujoco.mjtTexture.mjTEXTURE_2D:
        return False, texels[None].copy()
    faces = texels.reshape(-1, width, width, 3)
    return True, np.broadcast_to(faces, (6, width, width, 3)).copy() if len(faces) == 1 else faces.copy()


def _mesh(model: mujoco.MjModel, index: int) -> Mesh:
    """Take a mesh as MuJoCo's OpenGL renderer does: corners sharper than 37 degrees keep the face's normal."""

    def part(array: np.ndarray, start: np.ndarray, count: np.ndarray) -> np.ndarray:
        return array[start[index] : start[index] + count[index]]

    vertices = part(model.mesh_vert, model.mesh_vertadr, model.mesh_vertnum)
    faces = part(model.mesh_face, model.mesh_faceadr, model.mesh_facenum)
    normals = part(model.mesh_normal, model.mesh_normaladr, model.mesh_normalnum)[
        part(model.mesh_facenormal, model.mesh_faceadr, model.mesh_facenum)
    ]
    corners = vertices[faces]
    flat = np.cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0])
    flat /= np.maximum(np.linalg.norm(flat, axis=1, keepdims=True), 1e-12)
    texture = None
    if model.mesh_texcoordadr[index] < 0:
        sharp = np.einsum("fck,fk->fc", normals, flat) < 0.8
        normals = np.where(sharp[..., None], flat[:, None], normals)
    else:
        texture = part(model.mesh_texcoord, model.mesh_texcoordadr, model.mesh_texcoordnum)[
            part(model.mesh_facetexcoord, model.mesh_faceadr, model.mesh_facenum)
        ].astype(np.float32)
    return Mesh(vertices.astype(np.float32), faces.astype(np.int32), normals.astype(np.float32), texture)
