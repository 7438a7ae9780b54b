"""A ray tracer in NVIDIA Warp that draws an `mjvScene` by the rules of MuJoCo's fixed-function OpenGL renderer.

Why not MuJoCo Warp's renderer: it shades by rules of its own and knows no sites, tendons, reflection or
transparency, and policies trained on its pictures fail on OpenGL's. Here a picture is made in three launches:

    place   a thread per world and geom    unpack the row; bound each geom in each view
    find    a thread per pixel corner      which geom is seen there
    shade   a thread per pixel             light, texture, shadow, reflection; 4 samples where corners disagree

A *view* is a point with three axes from which rays start: the camera (0), the camera mirrored by the reflecting
plane (1), each light that casts shadows (2...). Every ray starts at a view's point, so a geom is met only by rays
inside of its rectangle in that view, and the view's point in the geom's frame is computed once.

The rules, from MuJoCo's render_gl3.c (classic renderer, 3.17):
- light: the OpenGL 1.5 lighting model with a local viewer, clamped to [0, 1], then times the texture.
- shadow lights are added one by one where unshadowed; their ambient part too is absent in shadow.
- the first reflective plane or box adds its mirror image, times reflectance, lit by all lights, unshadowed.
- transparent geoms (alpha < 0.995) come last, lit by all lights, unshadowed, and are blended twice.
- a plane is lit at the corners of its grid and interpolated between.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import warp as wp

from pixelcontrol.envs.render.scene import CAMERA_SIZE, GEOM_SIZE, LIGHT_SIZE, Mesh, Scene

PLANE, SPHERE, CAPSULE, ELLIPSOID, CYLINDER, BOX, MESH = (wp.constant(i) for i in (0, 2, 3, 4, 5, 6, 7))
CAMERA, MIRROR, FIRST_LIGHT = wp.constant(0), wp.constant(1), wp.constant(2)
NOTHING = wp.constant(-1)
FAR = wp.constant(1.0e8)
OPAQUE = wp.constant(0.995)  # render_gl3.c: alpha below this is transparent
_GRID = 200  # mjMAXPLANEGRID: cells of an infinite plane, most cells of a finite one


@wp.struct
class Tables:
    """What never changes, as `Scene` has it."""

    surface: wp.array(dtype=wp.vec4)  # by material: emission, specular, shininess, reflectance
    texture: wp.array(dtype=wp.int32)  # by material
    uniform: wp.array(dtype=wp.int32)
    repeat: wp.array(dtype=wp.vec2)
    colours: wp.array2d(dtype=wp.vec3)  # by light: ambient, diffuse, specular
    attenuation: wp.array(dtype=wp.vec3)
    cone: wp.array(dtype=wp.vec2)  # by light: cosine of the cutoff, exponent
    directional: wp.array(dtype=wp.int32)
    shadow: wp.array(dtype=wp.int32)  # by light: its view, or 0
    shadow_half: wp.array(dtype=wp.float32)  # by light: half width of its shadow, in its view's coordinates
    grid: wp.array2d(dtype=wp.vec3)  # by plane and axis: half width, width of the first cell, of the others
    levels: wp.array2d(dtype=wp.int32)  # by texture and mip level: first texel
    extent: wp.array(dtype=wp.vec4i)  # by texture: is it a cube, width, height, number of levels
    texels: wp.array(dtype=wp.uint32)
    skybox: wp.int32
    mesh: wp.array(dtype=wp.uint64)
    mesh_centre: wp.array(dtype=wp.vec3)
    mesh_half: wp.array(dtype=wp.vec3)
    mesh_normal: wp.array(dtype=wp.vec3)  # three per face, faces of all meshes in a row
    mesh_start: wp.array(dtype=wp.int32)  # first face of each mesh
    far: wp.float32


@wp.struct
class Worlds:
    """What each picture is made from: first index the world."""

    count: wp.array(dtype=wp.int32)
    reflector: wp.array(dtype=wp.int32)  # the geom that mirrors, or NOTHING
    half_height: wp.array(dtype=wp.vec2)  # of the camera's view at distance 1, and its centre
    origin: wp.array2d(dtype=wp.vec3)  # by view
    axes: wp.array2d(dtype=wp.mat33)  # by view; rows are right, up, forward
    light_direction: wp.array2d(dtype=wp.vec3)  # by light
    light_position: wp.array2d(dtype=wp.vec3)
    kind: wp.array2d(dtype=wp.vec3i)  # by geom: type, data, material
    size: wp.array2d(dtype=wp.vec3)
    position: wp.array2d(dtype=wp.vec3)
    rotation: wp.array2d(dtype=wp.mat33)
    rgba: wp.array2d(dtype=wp.vec4)
    bounds: wp.array3d(dtype=wp.vec4)  # by view and geom: lowest x, y, highest x, y
    start: wp.array3d(dtype=wp.vec3)  # by view and geom: the view's point in the geom's frame


@wp.struct
class Hit:
    """Where a ray meets a geom; `geom` is NOTHING where it meets none."""

    geom: wp.int32
    part: wp.int32  # side of a box, cap of a cylinder, triangle of a mesh
    distance: wp.float32
    u: wp.float32  # place on the triangle
    v: wp.float32


# Nothing is differentiated: this halves the time to compile.
wp.set_module_options({"enable_backward": False})

# --------------------------------------------------------------------------------------------------------------
# Rays against geoms, in the geom's own frame. Only entries count: OpenGL does not draw inner faces.


@wp.func
def ray_sphere(start: wp.vec3, ray: wp.vec3, radius: float):
    b = wp.dot(start, ray)
    root = b * b - wp.dot(start, start) + radius * radius
    if root < 0.0:
        return FAR
    return -b - wp.sqrt(root)


@wp.func
def ray_ellipsoid(start: wp.vec3, ray: wp.vec3, size: wp.vec3):
    s = wp.cw_div(start, size)
    r = wp.cw_div(ray, size)
    a = wp.dot(r, r)
    b = wp.dot(s, r)
    root = b * b - a * (wp.dot(s, s) - 1.0)
    if root < 0.0:
        return FAR
    return (-b - wp.sqrt(root)) / a


@wp.func
def ray_tube(start: wp.vec3, ray: wp.vec3, radius: float, half: float):
    """The side of a cylinder, without its caps."""
    a = ray[0] * ray[0] + ray[1] * ray[1]
    b = start[0] * ray[0] + start[1] * ray[1]
    root = b * b - a * (start[0] * start[0] + start[1] * start[1] - radius * radius)
    if root < 0.0 or a < 1.0e-12:
        return FAR
    distance = (-b - wp.sqrt(root)) / a
    if wp.abs(start[2] + distance * ray[2]) > half:
        return FAR
    return distance


@wp.func
def ray_capsule(start: wp.vec3, ray: wp.vec3, radius: float, half: float):
    distance = ray_tube(start, ray, radius, half)
    if distance < FAR:
        return distance
    end = wp.vec3(0.0, 0.0, half)
    return wp.min(ray_sphere(start - end, ray, radius), ray_sphere(start + end, ray, radius))


@wp.func
def ray_box(start: wp.vec3, ray: wp.vec3, size: wp.vec3):
    """Return the distance and the side entered: axis, + 3 on its negative end."""
    entry = float(-FAR)
    leave = float(FAR)
    side = int(0)
    for axis in range(3):
        if wp.abs(ray[axis]) > 1.0e-9:
            near = (-wp.sign(ray[axis]) * size[axis] - start[axis]) / ray[axis]
            leave = wp.min(leave, (wp.sign(ray[axis]) * size[axis] - start[axis]) / ray[axis])
            if near > entry:
                entry = near
                side = axis
                if ray[axis] > 0.0:
                    side = axis + 3
        elif wp.abs(start[axis]) > size[axis]:
            leave = -FAR
    if entry > leave:
        return FAR, side
    return entry, side


@wp.func
def ray_geom(tables: Tables, kind: wp.vec3i, size: wp.vec3, start: wp.vec3, ray: wp.vec3) -> Hit:
    """Meet one geom; `distance` is FAR where the ray passes by, and may be negative."""
    hit = Hit()
    hit.distance = FAR
    if kind[0] == PLANE:
        if wp.abs(ray[2]) > 1.0e-9:
            distance = -start[2] / ray[2]
            grid_x = tables.grid[kind[1], 0]
            grid_y = tables.grid[kind[1], 1]
            x = start[0] + distance * ray[0]
            y = start[1] + distance * ray[1]
            if wp.abs(x) <= grid_x[0] and wp.abs(y) <= grid_y[0]:
                hit.distance = distance
    elif kind[0] == SPHERE:
        hit.distance = ray_sphere(start, ray, size[0])
    elif kind[0] == CAPSULE:
        hit.distance = ray_capsule(start, ray, size[0], size[2])
    elif kind[0] == ELLIPSOID:
        hit.distance = ray_ellipsoid(start, ray, size)
    elif kind[0] == CYLINDER:
        hit.distance = ray_tube(start, ray, size[0], size[2])
        if wp.abs(ray[2]) > 1.0e-9:
            cap = (-wp.sign(ray[2]) * size[2] - start[2]) / ray[2]
            x = start[0] + cap * ray[0]
            y = start[1] + cap * ray[1]
            if cap < hit.distance and x * x + y * y < size[0] * size[0]:
                hit.distance = cap
                hit.part = 1
    elif kind[0] == BOX:
        distance, side = ray_box(start, ray, size)
        hit.distance = distance
        hit.part = side
    elif kind[0] == MESH:
        query = wp.mesh_query_ray(tables.mesh[kind[1]], start, ray, FAR)
        if query.result:
            hit.distance = query.t
            hit.part = query.face
            hit.u = query.u
            hit.v = query.v
    return hit


@wp.func
def geom_normal(tables: Tables, kind: wp.vec3i, size: wp.vec3, place: wp.vec3, hit: Hit) -> wp.vec3:
    """The unit normal at `place`, both in the geom's frame."""
    normal = wp.vec3(0.0, 0.0, 1.0)
    if kind[0] == SPHERE:
        normal = place
    elif kind[0] == CAPSULE:
        normal = wp.vec3(place[0], place[1], place[2] - wp.clamp(place[2], -size[2], size[2]))
    elif kind[0] == ELLIPSOID:
        normal = wp.cw_div(place, wp.cw_mul(size, size))
    elif kind[0] == CYLINDER:
        if hit.part == 0:
            normal = wp.vec3(place[0], place[1], 0.0)
        else:
            normal = wp.vec3(0.0, 0.0, place[2])
    elif kind[0] == BOX:
        normal = wp.vec3(0.0, 0.0, 0.0)
        if hit.part < 3:
            normal[hit.part] = 1.0
        else:
            normal[hit.part - 3] = -1.0
    elif kind[0] == MESH:
        first = 3 * (tables.mesh_start[kind[1]] + hit.part)
        normal = (
            hit.u * tables.mesh_normal[first]
            + hit.v * tables.mesh_normal[first + 1]
            + (1.0 - hit.u - hit.v) * tables.mesh_normal[first + 2]
        )
    return wp.normalize(normal)


@wp.func
def trace(
    tables: Tables,
    worlds: Worlds,
    world: int,
    view: int,
    at: wp.vec2,
    ray: wp.vec3,
    beyond: float,
    within: float,
    ignored: int,
) -> Hit:
    """The nearest geom but `ignored` that a ray from a view's point meets between two distances.

    `at` is the ray in the view's own coordinates: right and up at distance 1 forward.
    """
    best = Hit()
    best.geom = NOTHING
    best.distance = within
    for geom in range(worlds.count[world]):
        box = worlds.bounds[world, view, geom]
        if at[0] >= box[0] and at[1] >= box[1] and at[0] <= box[2] and at[1] <= box[3] and geom != ignored:
            rotation = worlds.rotation[world, geom]
            hit = ray_geom(
                tables,
                worlds.kind[world, geom],
                worlds.size[world, geom],
                worlds.start[world, view, geom],
                ray * rotation,
            )
            if hit.distance > beyond and hit.distance < best.distance:
                best = hit
                best.geom = geom
    return best


# --------------------------------------------------------------------------------------------------------------
# Light


@wp.func
def light_on(
    tables: Tables,
    worlds: Worlds,
    world: int,
    light: int,
    place: wp.vec3,
    normal: wp.vec3,
    to_eye: wp.vec3,
    colour: wp.vec3,
    surface: wp.vec4,
) -> wp.vec3:
    """What one light adds at a place: OpenGL 1.5, section 2.14.1."""
    direction = worlds.light_direction[world, light]
    to_light = -direction
    strength = float(1.0)
    if tables.directional[light] == 0:
        to_light = worlds.light_position[world, light] - place
        distance = wp.length(to_light)
        to_light = to_light / distance
        fade = tables.attenuation[light]
        strength = 1.0 / (fade[0] + distance * (fade[1] + distance * fade[2]))
        cone = tables.cone[light]
        aligned = -wp.dot(to_light, direction)
        if aligned < cone[0]:
            return wp.vec3(0.0, 0.0, 0.0)
        strength = strength * wp.pow(aligned, cone[1])
    total = wp.cw_mul(tables.colours[light, 0], colour)
    facing = wp.dot(normal, to_light)
    if facing > 0.0:
        total = total + facing * wp.cw_mul(tables.colours[light, 1], colour)
        gloss = wp.dot(normal, wp.normalize(to_light + to_eye))
        if gloss > 0.0:
            total = total + surface[1] * wp.pow(gloss, 128.0 * surface[2]) * tables.colours[light, 2]
    return strength * total


@wp.func
def clamp_colour(colour: wp.vec3) -> wp.vec3:
    return wp.vec3(wp.min(colour[0], 1.0), wp.min(colour[1], 1.0), wp.min(colour[2], 1.0))


ALL_LIGHTS = wp.constant(-1)
PLAIN_LIGHTS = wp.constant(-2)


@wp.func
def light_sum(
    tables: Tables,
    worlds: Worlds,
    world: int,
    which: int,
    place: wp.vec3,
    normal: wp.vec3,
    eye: wp.vec3,
    colour: wp.vec3,
    surface: wp.vec4,
) -> wp.vec3:
    """The light at one place, clamped: of all lights, of those without shadow, or of light `which` alone."""
    to_eye = wp.normalize(eye - place)
    if which >= 0:
        return clamp_colour(light_on(tables, worlds, world, which, place, normal, to_eye, colour, surface))
    total = surface[0] * colour
    for light in range(tables.shadow.shape[0]):
        if which == ALL_LIGHTS or tables.shadow[light] == 0:
            total = total + light_on(tables, worlds, world, light, place, normal, to_eye, colour, surface)
    return clamp_colour(total)


@wp.func
def grid_cell(x: float, axis: wp.vec3):
    """The ends of the grid cell of a plane in which x lies, along one axis."""
    inner = axis[0] - axis[1]
    if x < -inner:
        return -axis[0], -inner
    if x > inner:
        return inner, axis[0]
    low = -inner + axis[2] * wp.floor((x + inner) / axis[2])
    return low, low + axis[2]


@wp.func
def light_geom(
    tables: Tables,
    worlds: Worlds,
    world: int,
    which: int,
    geom: int,
    local: wp.vec3,
    place: wp.vec3,
    normal: wp.vec3,
    eye: wp.vec3,
    colour: wp.vec3,
    surface: wp.vec4,
) -> wp.vec3:
    """The light at a place of a geom. A plane is lit at its grid's corners, as OpenGL lights vertices."""
    kind = worlds.kind[world, geom]
    if kind[0] != PLANE:
        return light_sum(tables, worlds, world, which, place, normal, eye, colour, surface)
    x0, x1 = grid_cell(local[0], tables.grid[kind[1], 0])
    y0, y1 = grid_cell(local[1], tables.grid[kind[1], 1])
    a = (local[0] - x0) / wp.max(x1 - x0, 1.0e-9)
    b = (local[1] - y0) / wp.max(y1 - y0, 1.0e-9)
    # Two triangles share the diagonal from (x1, y0) to (x0, y1).
    corner = wp.vec3(x0, y0, 0.0)
    if a + b > 1.0:
        corner = wp.vec3(x1, y1, 0.0)
        swap = 1.0 - b
        b = 1.0 - a
        a = swap
    position = worlds.position[world, geom]
    rotation = worlds.rotation[world, geom]
    at_corner = light_sum(
        tables, worlds, world, which, position + rotation * corner, normal, eye, colour, surface
    )
    right = position + rotation * wp.vec3(x1, y0, 0.0)
    at_right = light_sum(tables, worlds, world, which, right, normal, eye, colour, surface)
    left = position + rotation * wp.vec3(x0, y1, 0.0)
    at_left = light_sum(tables, worlds, world, which, left, normal, eye, colour, surface)
    return (1.0 - a - b) * at_corner + a * at_right + b * at_left


@wp.func
def in_shadow(tables: Tables, worlds: Worlds, world: int, light: int, place: wp.vec3, geom: int) -> bool:
    """Whether something stands between a light and a place on `geom`. Outside of its shadow map nothing does."""
    view = tables.shadow[light]
    axes = worlds.axes[world, view]
    origin = worlds.origin[world, view]
    seen = axes * (place - origin)
    if seen[2] <= 0.0:
        return False
    if tables.directional[light] == 1:
        at = wp.vec2(seen[0], seen[1])
    else:
        at = wp.vec2(seen[0], seen[1]) / seen[2]
    half = tables.shadow_half[light]
    if wp.abs(at[0]) > half or wp.abs(at[1]) > half:
        return False
    if tables.directional[light] == 0:
        distance = wp.length(seen)
        ray = (place - origin) / distance
        hit = trace(tables, worlds, world, view, at, ray, 0.0, distance * 0.999, geom)
        return hit.geom != NOTHING
    # A directional light has no point: start each ray in the plane through its position.
    ray = wp.vec3(axes[2, 0], axes[2, 1], axes[2, 2])
    start = place - seen[2] * ray
    for other in range(worlds.count[world]):
        box = worlds.bounds[world, view, other]
        if at[0] >= box[0] and at[1] >= box[1] and at[0] <= box[2] and at[1] <= box[3] and other != geom:
            rotation = worlds.rotation[world, other]
            hit = ray_geom(
                tables,
                worlds.kind[world, other],
                worlds.size[world, other],
                (start - worlds.position[world, other]) * rotation,
                ray * rotation,
            )
            if hit.distance > 0.0 and hit.distance < seen[2] * 0.999:
                return True
    return False


# --------------------------------------------------------------------------------------------------------------
# Textures: trilinear, as GL_LINEAR_MIPMAP_LINEAR


@wp.func
def texel(tables: Tables, start: int, width: int, x: int, y: int) -> wp.vec3:
    word = tables.texels[start + y * width + x]
    scale = 1.0 / 255.0
    return wp.vec3(
        float(word & wp.uint32(255)) * scale,
        float((word >> wp.uint32(8)) & wp.uint32(255)) * scale,
        float((word >> wp.uint32(16)) & wp.uint32(255)) * scale,
    )


@wp.func
def bilinear(tables: Tables, texture: int, face: int, level: int, s: float, t: float, wrap: bool) -> wp.vec3:
    extent = tables.extent[texture]
    width = wp.max(extent[1] >> level, 1)
    height = wp.max(extent[2] >> level, 1)
    start = tables.levels[texture, level] + face * width * height
    x = s * float(width) - 0.5
    y = t * float(height) - 0.5
    x0 = int(wp.floor(x))
    y0 = int(wp.floor(y))
    a = x - float(x0)
    b = y - float(y0)
    x1 = x0 + 1
    y1 = y0 + 1
    if wrap:
        x0 = (x0 % width + width) % width
        x1 = (x1 % width + width) % width
        y0 = (y0 % height + height) % height
        y1 = (y1 % height + height) % height
    else:
        x0 = wp.clamp(x0, 0, width - 1)
        x1 = wp.clamp(x1, 0, width - 1)
        y0 = wp.clamp(y0, 0, height - 1)
        y1 = wp.clamp(y1, 0, height - 1)
    low = (1.0 - a) * texel(tables, start, width, x0, y0) + a * texel(tables, start, width, x1, y0)
    high = (1.0 - a) * texel(tables, start, width, x0, y1) + a * texel(tables, start, width, x1, y1)
    return (1.0 - b) * low + b * high


@wp.func
def trilinear(
    tables: Tables, texture: int, face: int, s: float, t: float, footprint: float, wrap: bool
) -> wp.vec3:
    """Sample where one pixel covers `footprint` texels of the finest level."""
    last = tables.extent[texture][3] - 1
    level = wp.clamp(wp.log2(wp.max(footprint, 1.0e-6)), 0.0, float(last))
    fine = int(wp.floor(level))
    blend = level - float(fine)
    sample = bilinear(tables, texture, face, fine, s, t, wrap)
    if blend > 0.0:
        sample = (1.0 - blend) * sample + blend * bilinear(tables, texture, face, fine + 1, s, t, wrap)
    return sample


@wp.func
def cube(tables: Tables, texture: int, toward: wp.vec3, across: wp.vec3, down: wp.vec3) -> wp.vec3:
    """Sample a cube map; `across` and `down` are how `toward` changes over one pixel. OpenGL 1.5, section 3.8.6."""
    x = wp.abs(toward[0])
    y = wp.abs(toward[1])
    z = wp.abs(toward[2])
    major = int(2)
    if x >= y and x >= z:
        major = 0
    elif y >= z:
        major = 1
    face = 2 * major
    sign = float(1.0)
    if toward[major] < 0.0:
        face = face + 1
        sign = -1.0
    # Rows of `pick` turn a direction into (s, t) before the division by the major axis.
    s_of = wp.vec3(sign, 0.0, 0.0)
    t_of = wp.vec3(0.0, -1.0, 0.0)
    if major == 0:
        s_of = wp.vec3(0.0, 0.0, -sign)
    elif major == 1:
        s_of = wp.vec3(1.0, 0.0, 0.0)
        t_of = wp.vec3(0.0, 0.0, sign)
    m = wp.abs(toward[major])
    s = wp.dot(s_of, toward) / m
    t = wp.dot(t_of, toward) / m
    change_across = sign * across[major]
    change_down = sign * down[major]
    ds = wp.vec2(wp.dot(s_of, across) - s * change_across, wp.dot(s_of, down) - s * change_down) / m
    dt = wp.vec2(wp.dot(t_of, across) - t * change_across, wp.dot(t_of, down) - t * change_down) / m
    half = 0.5 * float(tables.extent[texture][1])
    footprint = half * wp.sqrt(wp.max(ds[0] * ds[0] + dt[0] * dt[0], ds[1] * ds[1] + dt[1] * dt[1]))
    return trilinear(tables, texture, face, 0.5 * s + 0.5, 0.5 * t + 0.5, footprint, False)


@wp.func
def texture_on(
    tables: Tables,
    kind: wp.vec3i,
    size: wp.vec3,
    local: wp.vec3,
    normal: wp.vec3,
    ray: wp.vec3,
    distance: float,
    across: wp.vec3,
    down: wp.vec3,
) -> wp.vec3:
    """The texture's colour at `local`; `across` and `down` are how the unit `ray` changes over one pixel."""
    texture = tables.texture[kind[2]]
    if texture < 0:
        return wp.vec3(1.0, 1.0, 1.0)
    # How the place moves over one pixel, within the surface's tangent plane.
    slope = distance / wp.dot(normal, ray)
    over = distance * across - slope * wp.dot(normal, across) * ray
    under = distance * down - slope * wp.dot(normal, down) * ray
    unit = wp.vec3(1.0, 1.0, 1.0)
    if tables.uniform[kind[2]] == 0:
        unit = wp.vec3(
            1.0 / wp.max(size[0], 1.0e-6), 1.0 / wp.max(size[1], 1.0e-6), 1.0 / wp.max(size[2], 1.0e-6)
        )
    extent = tables.extent[texture]
    if extent[0] == 1:
        return cube(tables, texture, wp.cw_mul(unit, local), wp.cw_mul(unit, over), wp.cw_mul(unit, under))
    # Coordinates count from a plane's corner if it has one, else from its middle (render_context.c, makePlane).
    repeat = tables.repeat[kind[2]]
    s_scale = 0.5 * repeat[0] * unit[0]
    t_scale = -0.5 * repeat[1] * unit[1]
    w = float(extent[1]) * s_scale
    h = float(extent[2]) * t_scale
    footprint = wp.sqrt(
        wp.max(
            w * w * over[0] * over[0] + h * h * over[1] * over[1],
            w * w * under[0] * under[0] + h * h * under[1] * under[1],
        )
    )
    s = s_scale * (local[0] + size[0])
    t = t_scale * (local[1] - size[1])
    return trilinear(tables, texture, 0, s, t, footprint, True)


# --------------------------------------------------------------------------------------------------------------
# Colour


@wp.func
def surface_colour(
    tables: Tables,
    worlds: Worlds,
    world: int,
    view: int,
    hit: Hit,
    ray: wp.vec3,
    across: wp.vec3,
    down: wp.vec3,
    which: int,
    tint: float,
) -> wp.vec3:
    """Light times texture where a ray from the camera or its mirror image meets a geom."""
    geom = hit.geom
    kind = worlds.kind[world, geom]
    size = worlds.size[world, geom]
    rotation = worlds.rotation[world, geom]
    local_ray = ray * rotation
    local = worlds.start[world, view, geom] + hit.distance * local_ray
    local_normal = geom_normal(tables, kind, size, local, hit)
    eye = worlds.origin[world, view]
    place = eye + hit.distance * ray
    rgba = worlds.rgba[world, geom]
    colour = tint * wp.vec3(rgba[0], rgba[1], rgba[2])
    surface = tables.surface[kind[2]]
    normal = rotation * local_normal
    paint = texture_on(
        tables,
        kind,
        size,
        local,
        local_normal,
        local_ray,
        hit.distance,
        across * rotation,
        down * rotation,
    )
    light = light_geom(tables, worlds, world, which, geom, local, place, normal, eye, colour, surface)
    total = wp.cw_mul(light, paint)
    if which == PLAIN_LIGHTS:
        for i in range(tables.shadow.shape[0]):
            if tables.shadow[i] != 0 and not in_shadow(tables, worlds, world, i, place, geom):
                lit = light_geom(tables, worlds, world, i, geom, local, place, normal, eye, colour, surface)
                total = total + wp.cw_mul(lit, paint)
    return total


@wp.func
def sky_colour(tables: Tables, ray: wp.vec3, across: wp.vec3, down: wp.vec3) -> wp.vec3:
    if tables.skybox < 0:
        return wp.vec3(0.0, 0.0, 0.0)
    return cube(
        tables,
        tables.skybox,
        wp.vec3(ray[0], ray[2], -ray[1]),
        wp.vec3(across[0], across[2], -across[1]),
        wp.vec3(down[0], down[2], -down[1]),
    )


@wp.func
def mirrored(tables: Tables, worlds: Worlds, world: int, vector: wp.vec3) -> wp.vec3:
    rotation = worlds.rotation[world, worlds.reflector[world]]
    normal = wp.vec3(rotation[0, 2], rotation[1, 2], rotation[2, 2])
    return vector - 2.0 * wp.dot(vector, normal) * normal


@wp.func
def reflects(worlds: Worlds, world: int, hit: Hit) -> bool:
    """Only the upper side of a plane or box mirrors."""
    return hit.geom == worlds.reflector[world] and hit.part == 2 * int(worlds.kind[world, hit.geom][0] == BOX)


@wp.func
def pixel_colour(
    tables: Tables,
    worlds: Worlds,
    world: int,
    first: Hit,
    at: wp.vec2,
    ray: wp.vec3,
    across: wp.vec3,
    down: wp.vec3,
) -> wp.vec3:
    """The colour along one camera ray that meets `first`."""
    hit = first
    total = wp.vec3(0.0, 0.0, 0.0)
    clear = float(1.0)
    for _layer in range(8):
        if hit.geom == NOTHING:
            return total + clear * sky_colour(tables, ray, across, down)
        alpha = worlds.rgba[world, hit.geom][3]
        kind = worlds.kind[world, hit.geom]
        if kind[0] == PLANE and worlds.start[world, CAMERA, hit.geom][2] < 0.0:
            alpha = 0.3 * alpha  # render_gl3.c: a plane seen from behind
        if alpha >= OPAQUE:
            colour = surface_colour(tables, worlds, world, CAMERA, hit, ray, across, down, PLAIN_LIGHTS, 1.0)
            if reflects(worlds, world, hit):
                bounce = mirrored(tables, worlds, world, ray)
                other = trace(tables, worlds, world, MIRROR, at, bounce, hit.distance, FAR, hit.geom)
                if other.geom != NOTHING:
                    colour = colour + surface_colour(
                        tables,
                        worlds,
                        world,
                        MIRROR,
                        other,
                        bounce,
                        mirrored(tables, worlds, world, across),
                        mirrored(tables, worlds, world, down),
                        ALL_LIGHTS,
                        tables.surface[kind[2]][3],
                    )
            return total + clear * clamp_colour(colour)
        colour = surface_colour(tables, worlds, world, CAMERA, hit, ray, across, down, ALL_LIGHTS, 1.0)
        rest = (1.0 - alpha) * (1.0 - alpha)  # blended twice: front to back, then back to front
        total = total + clear * (1.0 - rest) * colour
        clear = clear * rest
        hit = trace(tables, worlds, world, CAMERA, at, ray, hit.distance, FAR, hit.geom)
    return total


# --------------------------------------------------------------------------------------------------------------
# Kernels


@wp.func
def vector_at(rows: wp.array2d(dtype=wp.float32), world: int, at: int) -> wp.vec3:
    return wp.vec3(rows[world, at], rows[world, at + 1], rows[world, at + 2])


@wp.func
def axes_along(forward: wp.vec3) -> wp.mat33:
    side = wp.vec3(1.0, 0.0, 0.0)
    if wp.abs(forward[0]) > 0.9:
        side = wp.vec3(0.0, 1.0, 0.0)
    up = wp.normalize(wp.cross(forward, side))
    return wp.matrix_from_rows(wp.cross(forward, up), up, forward)


@wp.func
def is_reflective(tables: Tables, kind: int, material: int, rgba: wp.vec4) -> bool:
    return (kind == PLANE or kind == BOX) and rgba[3] >= OPAQUE and tables.surface[material][3] > 0.0


@wp.kernel
def look(tables: Tables, rows: wp.array2d(dtype=wp.float32), lights: int, worlds: Worlds):
    """Set up the views of each world."""
    world = wp.tid()
    count = int(rows[world, 0])
    worlds.count[world] = count
    eye = vector_at(rows, world, 1)
    forward = wp.normalize(vector_at(rows, world, 4))
    up = wp.normalize(vector_at(rows, world, 7))
    axes = wp.matrix_from_rows(wp.cross(forward, up), up, forward)
    worlds.origin[world, CAMERA] = eye
    worlds.axes[world, CAMERA] = axes
    worlds.half_height[world] = wp.vec2(rows[world, 10], rows[world, 11])

    for light in range(lights):
        at = 1 + wp.static(CAMERA_SIZE) + light * wp.static(LIGHT_SIZE)
        position = vector_at(rows, world, at)
        direction = vector_at(rows, world, at + 3)
        worlds.light_position[world, light] = position
        worlds.light_direction[world, light] = direction
        if tables.shadow[light] != 0:
            worlds.origin[world, tables.shadow[light]] = position
            worlds.axes[world, tables.shadow[light]] = axes_along(direction)

    reflector = int(NOTHING)
    first = 1 + wp.static(CAMERA_SIZE) + lights * wp.static(LIGHT_SIZE)
    for geom in range(count):
        at = first + geom * wp.static(GEOM_SIZE)
        rgba = wp.vec4(rows[world, at + 19], rows[world, at + 20], rows[world, at + 21], rows[world, at + 22])
        material = int(rows[world, at + 3])
        if material < 0:
            material = tables.texture.shape[0] - 1
        if reflector == NOTHING and is_reflective(tables, int(rows[world, at]), material, rgba):
            reflector = geom
            position = vector_at(rows, world, at + 7)
            normal = wp.vec3(rows[world, at + 12], rows[world, at + 15], rows[world, at + 18])
            if int(rows[world, at]) == BOX:
                position = position + rows[world, at + 6] * normal
            height = wp.dot(eye - position, normal)
            if height < 0.0:
                reflector = NOTHING - 1  # seen from behind: nothing mirrors
            worlds.origin[world, MIRROR] = eye - 2.0 * height * normal
            flip = wp.identity(n=3, dtype=wp.float32) - 2.0 * wp.outer(normal, normal)
            worlds.axes[world, MIRROR] = axes * flip
    worlds.reflector[world] = reflector


@wp.kernel
def place(tables: Tables, rows: wp.array2d(dtype=wp.float32), first: int, views: int, worlds: Worlds):
    """Unpack one geom, and bound it in each view."""
    world, geom = wp.tid()
    if geom >= worlds.count[world]:
        return
    at = first + geom * wp.static(GEOM_SIZE)
    kind = int(rows[world, at])
    data = int(rows[world, at + 1])
    material = int(rows[world, at + 3])
    if material < 0:
        material = tables.texture.shape[0] - 1
    if kind == MESH:
        data = data / 2  # mjvGeom counts each mesh twice: itself and its convex hull
    size = vector_at(rows, world, at + 4)
    position = vector_at(rows, world, at + 7)
    rotation = wp.matrix_from_rows(
        vector_at(rows, world, at + 10), vector_at(rows, world, at + 13), vector_at(rows, world, at + 16)
    )
    worlds.kind[world, geom] = wp.vec3i(kind, data, material)
    worlds.size[world, geom] = size
    worlds.position[world, geom] = position
    worlds.rotation[world, geom] = rotation
    worlds.rgba[world, geom] = wp.vec4(
        rows[world, at + 19], rows[world, at + 20], rows[world, at + 21], rows[world, at + 22]
    )

    centre = wp.vec3(0.0, 0.0, 0.0)
    half = size
    if kind == SPHERE:
        half = wp.vec3(size[0], size[0], size[0])
    elif kind == CAPSULE:
        half = wp.vec3(size[0], size[0], size[0] + size[2])
    elif kind == CYLINDER:
        half = wp.vec3(size[0], size[0], size[2])
    elif kind == MESH:
        centre = tables.mesh_centre[data]
        half = tables.mesh_half[data]
    for view in range(views):
        axes = worlds.axes[world, view]
        worlds.start[world, view, geom] = (worlds.origin[world, view] - position) * rotation
        flat = int(0)
        if view >= FIRST_LIGHT:
            for light in range(tables.shadow.shape[0]):
                if tables.shadow[light] == view:
                    flat = tables.directional[light]
        low = wp.vec2(FAR, FAR)
        high = wp.vec2(-FAR, -FAR)
        everywhere = kind == PLANE
        for corner in range(8):
            sign = wp.vec3(float(2 * (corner & 1) - 1), float((corner & 2) - 1), float((corner & 4) / 2 - 1))
            point = position + rotation * (centre + wp.cw_mul(sign, half))
            seen = axes * (point - worlds.origin[world, view])
            x = seen[0]
            y = seen[1]
            if flat == 0:
                if seen[2] < 1.0e-3:
                    everywhere = True
                x = x / seen[2]
                y = y / seen[2]
            low = wp.vec2(wp.min(low[0], x), wp.min(low[1], y))
            high = wp.vec2(wp.max(high[0], x), wp.max(high[1], y))
        if everywhere:
            low = wp.vec2(-FAR, -FAR)
            high = wp.vec2(FAR, FAR)
        worlds.bounds[world, view, geom] = wp.vec4(low[0], low[1], high[0], high[1])


@wp.func
def camera_point(worlds: Worlds, world: int, x: float, y: float, height: int, width: int) -> wp.vec2:
    """Where a point of the image, in pixels from its upper left, lies in the camera's view."""
    half = worlds.half_height[world]
    scale = 2.0 * half[0] / float(height)
    return wp.vec2((x - 0.5 * float(width)) * scale, half[1] + (0.5 * float(height) - y) * scale)


@wp.func
def camera_ray(worlds: Worlds, world: int, at: wp.vec2) -> wp.vec3:
    return wp.normalize(wp.vec3(at[0], at[1], 1.0) * worlds.axes[world, CAMERA])


@wp.func
def sample_colour(
    tables: Tables, worlds: Worlds, world: int, hit: Hit, at: wp.vec2, ray: wp.vec3, pixel: float
) -> wp.vec3:
    """The colour of one sample; `pixel` is the width of a pixel in the camera's view."""
    axes = worlds.axes[world, CAMERA]
    scale = pixel / wp.sqrt(1.0 + wp.dot(at, at))
    across = wp.vec3(axes[0, 0], axes[0, 1], axes[0, 2])
    down = wp.vec3(axes[1, 0], axes[1, 1], axes[1, 2])
    across = scale * (across - wp.dot(across, ray) * ray)
    down = scale * (down - wp.dot(down, ray) * ray)
    return pixel_colour(tables, worlds, world, hit, at, ray, across, down)


@wp.kernel
def find(tables: Tables, worlds: Worlds, height: int, width: int, seen: wp.array3d(dtype=wp.int32)):
    """Which part of which geom is seen at each pixel corner."""
    world, row, column = wp.tid()
    at = camera_point(worlds, world, float(column), float(row), height, width)
    ray = camera_ray(worlds, world, at)
    hit = trace(tables, worlds, world, CAMERA, at, ray, 0.0, FAR, NOTHING)
    part = hit.part
    if hit.geom != NOTHING and worlds.kind[world, hit.geom][0] == MESH:
        part = 0
    seen[world, row, column] = 8 * hit.geom + part


@wp.kernel
def shade(
    tables: Tables,
    worlds: Worlds,
    seen: wp.array3d(dtype=wp.int32),
    images: wp.array4d(dtype=wp.uint8),
):
    """Colour one pixel."""
    world, row, column = wp.tid()
    height = images.shape[2]
    width = images.shape[3]
    pixel = 2.0 * worlds.half_height[world][0] / float(height)
    x = float(column) + 0.5
    y = float(row) + 0.5
    corner = seen[world, row, column]
    total = wp.vec3(0.0, 0.0, 0.0)
    if (
        corner == seen[world, row, column + 1]
        and corner == seen[world, row + 1, column]
        and corner == seen[world, row + 1, column + 1]
    ):
        at = camera_point(worlds, world, x, y, height, width)
        ray = camera_ray(worlds, world, at)
        hit = trace(tables, worlds, world, CAMERA, at, ray, 0.0, FAR, NOTHING)
        total = sample_colour(tables, worlds, world, hit, at, ray, pixel)
    else:
        # OpenGL's usual places of 4 samples: a square grid, rotated.
        for sample in range(4):
            dx = float(sample) * 0.25 - 0.375
            dy = float((sample * 2 + sample / 2) % 4) * 0.25 - 0.375
            at = camera_point(worlds, world, x + dx, y + dy, height, width)
            ray = camera_ray(worlds, world, at)
            hit = trace(tables, worlds, world, CAMERA, at, ray, 0.0, FAR, NOTHING)
            total = total + 0.25 * sample_colour(tables, worlds, world, hit, at, ray, pixel)
    for channel in range(3):
        images[world, channel, row, column] = wp.uint8(wp.clamp(total[channel], 0.0, 1.0) * 255.0 + 0.5)


class Tracer:
    """The kernels with their memory, on the current Warp device."""

    def __init__(self, scene: Scene, num_worlds: int, image_size: tuple[int, int]) -> None:
        self._image_size = image_size
        self._num_worlds = num_worlds
        self._max_geoms = scene.max_geoms
        self._lights = len(scene.lights.shadow)
        self._views = 2 + int(scene.lights.shadow.sum())
        self._meshes = [_warp_mesh(mesh) for mesh in scene.meshes]
        self._tables = _tables(scene, self._meshes)
        self._worlds = _worlds(num_worlds, scene.max_geoms, self._views, self._lights)
        height, width = image_size
        self._seen = wp.zeros((num_worlds, height + 1, width + 1), dtype=wp.int32)

    def draw(self, rows: Any, images: Any) -> None:
        """Draw (worlds, payload) float32 Warp rows into a (worlds, 3, height, width) uint8 Warp array."""
        height, width = self._image_size
        first = 1 + CAMERA_SIZE + LIGHT_SIZE * self._lights
        device = rows.device

        def launch(kernel: Any, dim: Any, inputs: list[Any]) -> None:
            wp.launch(kernel, dim=dim, inputs=inputs, device=device)

        launch(look, self._num_worlds, [self._tables, rows, self._lights, self._worlds])
        launch(
            place, (self._num_worlds, self._max_geoms), [self._tables, rows, first, self._views, self._worlds]
        )
        launch(find, self._seen.shape, [self._tables, self._worlds, height, width, self._seen])
        launch(shade, (self._num_worlds, height, width), [self._tables, self._worlds, self._seen, images])


def _worlds(num_worlds: int, geoms: int, views: int, lights: int) -> Any:
    worlds = Worlds()
    worlds.count = wp.zeros(num_worlds, dtype=wp.int32)
    worlds.reflector = wp.zeros(num_worlds, dtype=wp.int32)
    worlds.half_height = wp.zeros(num_worlds, dtype=wp.vec2)
    worlds.origin = wp.zeros((num_worlds, views), dtype=wp.vec3)
    worlds.axes = wp.zeros((num_worlds, views), dtype=wp.mat33)
    worlds.light_direction = wp.zeros((num_worlds, lights), dtype=wp.vec3)
    worlds.light_position = wp.zeros((num_worlds, lights), dtype=wp.vec3)
    worlds.kind = wp.zeros((num_worlds, geoms), dtype=wp.vec3i)
    worlds.size = wp.zeros((num_worlds, geoms), dtype=wp.vec3)
    worlds.position = wp.zeros((num_worlds, geoms), dtype=wp.vec3)
    worlds.rotation = wp.zeros((num_worlds, geoms), dtype=wp.mat33)
    worlds.rgba = wp.zeros((num_worlds, geoms), dtype=wp.vec4)
    worlds.bounds = wp.zeros((num_worlds, views, geoms), dtype=wp.vec4)
    worlds.start = wp.zeros((num_worlds, views, geoms), dtype=wp.vec3)
    return worlds


def _tables(scene: Scene, meshes: list[Any]) -> Any:
    tables = Tables()
    materials, lights = scene.materials, scene.lights
    tables.surface = wp.array(materials.surface, dtype=wp.vec4)
    tables.texture = wp.array(materials.texture, dtype=wp.int32)
    tables.uniform = wp.array(materials.uniform.astype(np.int32), dtype=wp.int32)
    tables.repeat = wp.array(materials.repeat, dtype=wp.vec2)
    tables.colours = wp.array(lights.colours, dtype=wp.vec3)
    tables.attenuation = wp.array(lights.attenuation, dtype=wp.vec3)
    cutoff, exponent = lights.cone.T
    tables.cone = wp.array(np.stack([np.cos(np.radians(cutoff)), exponent], axis=1), dtype=wp.vec2)
    tables.directional = wp.array(lights.directional.astype(np.int32), dtype=wp.int32)
    view = np.where(lights.shadow, 1 + np.cumsum(lights.shadow), 0)
    tables.shadow = wp.array(view.astype(np.int32), dtype=wp.int32)
    spot = np.tan(np.radians(np.minimum(cutoff * scene.shadow_scale, 80.0)))
    tables.shadow_half = wp.array(
        np.where(lights.directional, scene.shadow_clip, spot).astype(np.float32), dtype=wp.float32
    )
    tables.grid = wp.array(_grid(scene), dtype=wp.vec3)
    tables.far = scene.far
    _put_textures(tables, scene)
    _put_meshes(tables, scene.meshes, meshes)
    return tables


def _grid(scene: Scene) -> np.ndarray:
    """The grids on which planes are lit: (planes, 2, 3), see `Tables.grid` (render_context.c, makePlane)."""
    grid = np.zeros((max(len(scene.planes), 1), 2, 3), np.float32)
    for i, (*halves, spacing) in enumerate(scene.planes):
        for axis, half in enumerate(halves):
            if half > 0:
                spacing_here = max(spacing, half / (_GRID - 2))
                cells = math.floor(half / spacing_here) // 2 * 2
                grid[i, axis] = half, half - cells * spacing_here, 2 * spacing_here
            else:
                cell = 2.1 * scene.far / (_GRID - 2)
                grid[i, axis] = 100 * cell, 0, cell
    return grid


def _put_textures(tables: Any, scene: Scene) -> None:
    """Pack all textures and their mip maps into one array of texels, one word each."""
    pool: list[np.ndarray] = []
    starts: list[list[int]] = []
    extents: list[tuple[int, int, int, int]] = []
    used = 0
    for is_cube, texels in scene.textures:
        level, starts_here = texels.astype(np.float32), []
        _, height, width, _ = texels.shape
        while True:
            starts_here.append(used)
            rounded = np.rint(level).astype(np.uint32)
            pool.append((rounded[..., 0] | rounded[..., 1] << 8 | rounded[..., 2] << 16).ravel())
            used += pool[-1].size
            if level.shape[1:3] == (1, 1):
                break
            level = _halve(level)
        starts.append(starts_here)
        extents.append((int(is_cube), width, height, len(starts_here)))
    padded = [row + [0] * (16 - len(row)) for row in starts] or [[0] * 16]
    tables.levels = wp.array(np.array(padded, np.int32), dtype=wp.int32)
    tables.extent = wp.array(np.array(extents or [(0, 1, 1, 1)], np.int32), dtype=wp.vec4i)
    tables.texels = wp.array(np.concatenate(pool) if pool else np.zeros(1, np.uint32), dtype=wp.uint32)
    tables.skybox = scene.skybox


def _halve(level: np.ndarray) -> np.ndarray:
    """The next mip level: half the size, rounded down, by area averages of (faces, height, width, 3)."""
    for axis in (1, 2):
        size = level.shape[axis]
        if size > 1:
            level = _shrink(np.moveaxis(level, axis, 0), size // 2)
            level = np.moveaxis(level, 0, axis)
    return level


def _shrink(level: np.ndarray, size: int) -> np.ndarray:
    """Average the first axis down to `size` equal parts, with a fraction of a texel where it does not divide."""
    edges = np.linspace(0, len(level), size + 1)
    total = np.concatenate([np.zeros_like(level[:1]), np.cumsum(level, axis=0, dtype=np.float64)])
    whole = np.minimum(edges.astype(int), len(level) - 1)
    part = (edges - whole).reshape(-1, *[1] * (level.ndim - 1))
    until = total[whole] + part * level[whole]
    return np.diff(until, axis=0) * (size / len(level))


def _warp_mesh(mesh: Mesh) -> Any:
    return wp.Mesh(
        points=wp.array(mesh.vertices, dtype=wp.vec3), indices=wp.array(mesh.faces.ravel(), dtype=wp.int32)
    )


def _put_meshes(tables: Any, meshes: list[Mesh], warp_meshes: list[Any]) -> None:
    low = np.array([m.vertices.min(axis=0) for m in meshes], np.float32).reshape(-1, 3)
    high = np.array([m.vertices.max(axis=0) for m in meshes], np.float32).reshape(-1, 3)
    starts = np.cumsum([0] + [len(m.faces) for m in meshes])
    tables.mesh = wp.array(np.array([m.id for m in warp_meshes], np.uint64), dtype=wp.uint64)
    tables.mesh_centre = wp.array((low + high) / 2, dtype=wp.vec3)
    tables.mesh_half = wp.array((high - low) / 2, dtype=wp.vec3)
    normals = [m.normals.reshape(-1, 3) for m in meshes]
    tables.mesh_normal = wp.array(np.concatenate(normals) if normals else np.zeros((0, 3)), dtype=wp.vec3)
    tables.mesh_start = wp.array(starts.astype(np.int32), dtype=wp.int32)
