"""What a picture of a dm_control world depends on: fixed things as arrays, moving things as one flat row.

The moving things are MuJoCo's own abstract scene (`mjvScene`), the list of geoms, lights and camera from which
its OpenGL renderer draws. So sites, tendons (a slack one hangs), transparency and whatever a task edits at the
start of an episode (a target's place, size, colour) are in the row by construction, for every task.

Unusual: workers import this module and nothing heavier; it knows NumPy and MuJoCo, no torch, Warp or OpenGL.
And it copies the geoms of an `mjvScene` as one block of memory, which takes 3 microseconds instead of 100.
"""

from __future__ import annotations

import ctypes
from dataclasses import dataclass
from typing import Any

import mujoco
import numpy as np

from pixelcontrol.envs.tasks import Cameras, channel_count

# One row: [number of geoms, camera (CAMERA_SIZE), lights (LIGHT_SIZE each), geoms (GEOM_SIZE each), heights].
CAMERA_SIZE = 13  # position 3, forward 3, up 3, half width and height, and middle, at distance 1
LIGHT_SIZE = 6  # position 3, direction 3
GEOM_SIZE = 23  # type, data id, category, material id, size 3, position 3, rotation 9 (rows), rgba 4

_GEOM_INTEGERS = 10  # type, dataid, objtype, objid, category, matid and four more: just before `size`
_GEOM_FLOATS = 19  # size 3, pos 3, mat 9, rgba 4
_FLAT = 1e-4  # metres by which the box around a height field is higher than its hills, which may be none
_MOST_LIGHTS = 8  # OpenGL's; MuJoCo's renderer asks for more in vain
_GLOW = 0.3  # where there is no light at all, not even the head's, everything shines by itself (render_gl3.c)
_CATENARY_SEGMENTS = 30  # a slack tendon is drawn as a chain of this many capsules


@dataclass(frozen=True)
class Materials:
    """One entry per material, then a last one for geoms that have none.

    Attributes:
        surface: float32 (materials, 4): emission, specular, shininess, reflectance.
        texture: int32 (materials,): index of its texture, or -1.
        uniform: bool (materials,): the texture repeats per metre, not per object.
        repeat: float32 (materials, 2): how often.
    """

    surface: np.ndarray
    texture: np.ndarray
    uniform: np.ndarray
    repeat: np.ndarray


@dataclass(frozen=True)
class Lights:
    """What does not move about the lights, in the order in which rows hold their poses.

    Attributes:
        colours: float32 (lights, 3, 3): ambient, diffuse, specular.
        attenuation: float32 (lights, 3): constant, linear, quadratic.
        cone: float32 (lights, 2): cutoff in degrees, exponent.
        directional: bool (lights,): else a spot light.
        shadow: bool (lights,): casts shadows.
    """

    colours: np.ndarray
    attenuation: np.ndarray
    cone: np.ndarray
    directional: np.ndarray
    shadow: np.ndarray


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
        max_geoms: how many geoms a row has room for.
        fields: int32 (height fields, 3): rows, columns, where in a row its heights begin, in metres, row by row;
            no rows where no geom has it.
        materials, lights, textures, meshes, planes: what never changes; see the classes above. A texture is
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
            ValueError: the model has no such camera, or `warp` cannot draw it: see `_refuse_what_is_not_drawn`.
        """
        model = physics.model.ptr
        self.channels = channel_count(camera, depth)
        self.depth = depth
        self._cameras = camera_ids(model, camera)
        self._snapshot: _Snapshot | None = None
        snapshot = self._snapshot_of(physics)
        for one in self._cameras:
            scene = snapshot.see(one)
            _refuse_what_is_not_drawn(model, one, scene)

        self.max_geoms = _most_geoms(model)
        self.lights = _lights(scene)
        row = 1 + CAMERA_SIZE + LIGHT_SIZE * len(self.lights.shadow) + GEOM_SIZE * self.max_geoms
        grids = np.stack([model.hfield_nrow, model.hfield_ncol], axis=1)
        shown = model.geom_dataid[model.geom_type == mujoco.mjtGeom.mjGEOM_HFIELD]
        grids[~np.isin(np.arange(model.nhfield), shown)] = (
            0  # the quadruped's terrain, where its floor is flat
        )
        ends = row + np.cumsum(grids.prod(axis=1))
        self.fields = np.column_stack([grids, ends - grids.prod(axis=1)]).astype(np.int32)
        self.payload_shape = (len(self._cameras), int(ends[-1]) if len(ends) else row)
        self.materials = _materials(model)
        if not len(self.lights.shadow):
            self.materials.surface[:, 0] += _GLOW  # emission
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
            RuntimeError: the world shows more geoms than its model had at construction.
        """
        snapshot = self._snapshot_of(physics)
        for camera, row in zip(self._cameras, out, strict=True):
            snapshot.see(camera)
            self._pack_row(snapshot, row)

    def _pack_row(self, snapshot: _Snapshot, out: np.ndarray) -> None:
        count = snapshot.scene.ngeom
        if count > self.max_geoms:
            raise RuntimeError(f"the world shows {count} geoms, {self.max_geoms} were expected at most")
        out[0] = count
        for at, eyes in zip(
            (1, 4, 7), (snapshot.eye_position, snapshot.eye_forward, snapshot.eye_up), strict=True
        ):
            np.add(eyes[0], eyes[1], out=out[at : at + 3])
            out[at : at + 3] *= 0.5
        eye = snapshot.scene.camera[0]
        out[10] = eye.frustum_width / eye.frustum_near  # 0 unless the camera says
        out[11] = 0.5 * (eye.frustum_top - eye.frustum_bottom) / eye.frustum_near
        out[12] = eye.frustum_center / eye.frustum_near
        out[13] = 0.5 * (eye.frustum_top + eye.frustum_bottom) / eye.frustum_near

        at = 1 + CAMERA_SIZE
        for position, direction in snapshot.lights:
            out[at : at + 3] = position
            out[at + 3 : at + 6] = direction
            at += LIGHT_SIZE

        geoms = out[at : at + self.max_geoms * GEOM_SIZE].reshape(self.max_geoms, GEOM_SIZE)
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
        lights = int(model.vis.headlight.active) + int(np.sum(model.light_active))
        self.lights = [(light.pos, light.dir) for light in self.scene.lights[: min(lights, _MOST_LIGHTS)]]
        self.integers, self.floats = _geom_memory(self.scene)

    def see(self, camera: int) -> mujoco.MjvScene:
        """Bring the scene up to date, as a camera sees it."""
        self._camera.fixedcamid = camera
        everything = mujoco.mjtCatBit.mjCAT_ALL.value
        mujoco.mjv_updateScene(
            self.model, self.data, self._option, self._perturb, self._camera, everything, self.scene
        )
        return self.scene


def _geom_memory(scene: mujoco.MjvScene) -> tuple[np.ndarray, np.ndarray]:
    """View the geoms of a scene as int32 (geoms, 10) and float32 (geoms, 19) without copying.

    Raises:
        RuntimeError: this version of MuJoCo lays out `mjvGeom` differently.
    """
    first, second = scene.geoms[0], scene.geoms[1]
    start = first.size.ctypes.data
    stride = second.size.ctypes.data - start

    def view(address: int, dtype: type, columns: int) -> np.ndarray:
        extent = (len(scene.geoms) - 1) * stride + 4 * columns
        block = (ctypes.c_byte * extent).from_address(address)
        return np.ndarray((len(scene.geoms), columns), dtype, block, strides=(stride, 4))

    integers = view(start - 4 * _GEOM_INTEGERS, np.int32, _GEOM_INTEGERS)
    floats = view(start, np.float32, _GEOM_FLOATS)
    first.type, first.dataid, first.category, first.matid = 1, 2, 3, 4
    first.pos[:], first.mat[:], first.rgba[:] = 5.0, 6.0, 7.0
    written = [*integers[0, [0, 1, 4, 5]], *floats[0, 3:]]
    if written != [1, 2, 3, 4] + 3 * [5.0] + 9 * [6.0] + 4 * [7.0]:
        raise RuntimeError(f"mujoco {mujoco.__version__} lays out mjvGeom in an unknown way")
    return integers, floats


def _materials(model: mujoco.MjModel) -> Materials:
    surface = np.stack(
        [model.mat_emission, model.mat_specular, model.mat_shininess, model.mat_reflectance], axis=1
    )
    rgb = model.mat_texid[:, mujoco.mjtTextureRole.mjTEXROLE_RGB]
    return Materials(
        # MuJoCo's `mjv_initGeom` gives a geom without material these.
        surface=np.vstack([surface, [[0.0, 0.5, 0.5, 0.0]]]).astype(np.float32),
        texture=np.append(rgb, -1).astype(np.int32),
        uniform=np.append(model.mat_texuniform, False).astype(bool),
        repeat=np.vstack([model.mat_texrepeat, [[0.0, 0.0]]]).astype(np.float32),
    )


def _lights(scene: mujoco.MjvScene) -> Lights:
    lights = scene.lights[: min(scene.nlight, _MOST_LIGHTS)]
    return Lights(
        colours=np.array([[x.ambient, x.diffuse, x.specular] for x in lights], np.float32).reshape(-1, 3, 3),
        attenuation=np.array([x.attenuation for x in lights], np.float32).reshape(-1, 3),
        cone=np.array([[x.cutoff, x.exponent] for x in lights], np.float32).reshape(-1, 2),
        directional=np.array([x.type == mujoco.mjtLightType.mjLIGHT_DIRECTIONAL for x in lights], bool),
        shadow=np.array([x.castshadow for x in lights], bool),
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
