"""Light by the OpenGL 1.5 model, at the corners of the triangles that stand for a geom, and between them.

A triangle here is a half of a cell of the grid that two parameters u and v draw on a surface: x and y of a plane,
two sides of a box, azimuth and height of a tube, azimuth and elevation of a ball, azimuth and radius of a disk.
"""

# Warp's types are calls, which mypy cannot read, and its subset of Python forbids what these rules propose.
# mypy: ignore-errors
# ruff: noqa: UP018

import math

import warp as wp

from pixelcontrol.envs.render.rays import BOX, CAPSULE, CYLINDER, PLANE, SPHERE, Hit, Shape, World

DISK = wp.constant(-2)  # not a geom's kind: the end of a cylinder
SLICE, STACK = (
    wp.constant(2.0 * math.pi / 28.0),
    wp.constant(math.pi / 16.0),
)  # visual/quality's usual numbers
ALL_LIGHTS, PLAIN_LIGHTS = wp.constant(-1), wp.constant(-2)


@wp.struct
class Light:
    """A light."""

    position: wp.vec3
    direction: wp.vec3
    ambient: wp.vec3
    diffuse: wp.vec3
    specular: wp.vec3
    attenuation: wp.vec3  # constant, linear, quadratic
    cutoff: wp.float32  # cosine
    exponent: wp.float32
    directional: wp.int32
    view: wp.int32  # from which it casts shadows, or 0
    shadow_half: wp.float32  # half width of the shadowed square in that view


@wp.struct
class Grid:
    """How a plane is cut into cells, along x and y."""

    first: wp.vec2  # width of the first and last cell
    cell: wp.vec2  # width of the others


@wp.struct
class Patch:
    """A surface with its grid, around one place of it."""

    kind: wp.int32  # PLANE, BOX, CYLINDER (a tube), SPHERE (a ball) or DISK
    side: wp.int32  # of a box
    sign: wp.float32  # -1 for the lower half of a ball and the lower disk
    size: wp.vec3
    centre: wp.vec3
    u: wp.vec3  # value at the place, beginning and end of the cell
    v: wp.vec3


@wp.struct
class Facet:
    """A triangle and what of it and its surface decides how a light falls on one place of it."""

    corners: wp.mat33  # rows
    u: wp.vec3  # of the corners, in the patch; of a mesh with a flat texture: places in that
    v: wp.vec3
    normals: wp.mat33  # the surface's, at the corners
    weights: wp.vec3  # the place, in parts of the corners
    colour: wp.vec3
    surface: wp.vec4  # emission, specular, its exponent, the least cosine that is worth a power


@wp.func
def grid_cell(x: float, half: float, first: float, cell: float) -> wp.vec3:
    """x and the ends of the cell in which it lies, along one axis of a plane's grid."""
    inner = half - first
    if x < -inner:
        return wp.vec3(x, -half, -inner)
    if x > inner:
        return wp.vec3(x, inner, half)
    low = -inner + cell * wp.floor((x + inner) / cell)
    return wp.vec3(x, low, low + cell)


@wp.func
def even_cell(x: float, cell: float) -> wp.vec3:
    """x and the ends of the cell in which it lies, where all cells are as wide."""
    low = cell * wp.floor(x / cell)
    return wp.vec3(x, low, low + cell)


@wp.func
def patch_at(shape: Shape, grid: Grid, hit: Hit, place: wp.vec3) -> Patch:
    """The surface around a place of a geom that is not a mesh."""
    patch = Patch()
    patch.kind = shape.kind
    patch.size = shape.size
    patch.side = hit.part
    patch.sign = 1.0
    if place[2] < 0.0:
        patch.sign = -1.0
    if shape.kind == PLANE:
        patch.u = grid_cell(place[0], shape.half[0], grid.first[0], grid.cell[0])
        patch.v = grid_cell(place[1], shape.half[1], grid.first[1], grid.cell[1])
        return patch
    if shape.kind == BOX:
        i = (hit.part + 1) % 3
        j = (hit.part + 2) % 3
        patch.u = even_cell(place[i], 0.5 * shape.size[i])
        patch.v = even_cell(place[j], 0.5 * shape.size[j])
        return patch

    patch.u = even_cell(wp.atan2(place[1] / shape.size[1], place[0] / shape.size[0]), SLICE)
    if shape.kind == CYLINDER and hit.part == 1:
        patch.kind = DISK
        patch.v = even_cell(wp.sqrt(place[0] * place[0] + place[1] * place[1]), shape.size[0] / 8.0)
    elif shape.kind == CYLINDER or (shape.kind == CAPSULE and wp.abs(place[2]) <= shape.size[2]):
        patch.kind = CYLINDER
        patch.v = even_cell(place[2], shape.size[2] / 8.0)
    else:
        patch.kind = SPHERE
        if shape.kind == CAPSULE:
            patch.centre = wp.vec3(0.0, 0.0, patch.sign * shape.size[2])
            patch.size = wp.vec3(shape.size[0], shape.size[0], shape.size[0])
        height = (place[2] - patch.centre[2]) / patch.size[2]
        patch.v = even_cell(wp.asin(wp.clamp(wp.abs(height), 0.0, 0.9999)), STACK)
    return patch


@wp.func
def patch_normal(patch: Patch, u: float, v: float) -> wp.vec3:
    """The unit normal at (u, v)."""
    if patch.kind == PLANE:
        return wp.vec3(0.0, 0.0, 1.0)
    if patch.kind == CYLINDER:
        return wp.vec3(wp.cos(u), wp.sin(u), 0.0)
    if patch.kind == SPHERE:
        ball = wp.vec3(wp.cos(u) * wp.cos(v), wp.sin(u) * wp.cos(v), patch.sign * wp.sin(v))
        return wp.normalize(wp.cw_div(ball, patch.size))
    if patch.kind == DISK:
        return wp.vec3(0.0, 0.0, patch.sign)
    normal = wp.vec3(0.0, 0.0, 0.0)
    normal[patch.side % 3] = 1.0 - 2.0 * float(patch.side / 3)
    return normal


@wp.func
def patch_point(patch: Patch, u: float, v: float) -> wp.vec3:
    """The place at (u, v), in the geom's frame."""
    size = patch.size
    if patch.kind == PLANE:
        return wp.vec3(u, v, 0.0)
    if patch.kind == CYLINDER:
        return wp.vec3(size[0] * wp.cos(u), size[1] * wp.sin(u), v)
    if patch.kind == SPHERE:
        ball = wp.vec3(wp.cos(u) * wp.cos(v), wp.sin(u) * wp.cos(v), patch.sign * wp.sin(v))
        return patch.centre + wp.cw_mul(ball, size)
    if patch.kind == DISK:
        return wp.vec3(v * wp.cos(u), v * wp.sin(u), patch.sign * size[2])
    i = patch.side % 3
    point = wp.vec3(0.0, 0.0, 0.0)
    point[i] = size[i] * (1.0 - 2.0 * float(patch.side / 3))
    point[(i + 1) % 3] = u
    point[(i + 2) % 3] = v
    return point


@wp.func
def patch_texture(patch: Patch, u: float, v: float) -> wp.vec2:
    """Where (u, v) lies in a flat texture that is wrapped once round the geom (render_context.c, makeBuiltin)."""
    size = patch.size
    if patch.kind == BOX:
        i = (patch.side + 1) % 3
        j = (patch.side + 2) % 3
        across = 0.5 + 0.5 * u / size[i]
        down = 0.5 + 0.5 * v / size[j]
        if i > j:  # a side across y, whose v is along x
            return wp.vec2(down, 1.0 - across)
        return wp.vec2(across, 1.0 - down)
    if patch.kind == DISK:
        return wp.vec2(0.5 + 0.5 * v * wp.cos(u) / size[0], 0.5 + 0.5 * v * wp.sin(u) / size[0])
    around = 0.5 * u / wp.pi
    if patch.kind == SPHERE and v > 0.499 * wp.pi:
        around = 0.25 * (patch.u[1] + patch.u[2]) / wp.pi  # the pole, the third corner of a triangle
    if patch.u[1] < 0.0:
        around = around + 1.0
    if patch.kind == CYLINDER:
        return wp.vec2(around, 0.5 - 0.5 * v / size[2])
    if patch.centre[2] == 0.0:
        return wp.vec2(around, 0.5 - patch.sign * v / wp.pi)
    # an end of a capsule, of which either has the whole texture
    return wp.vec2(around, 0.5 + patch.sign * (0.5 - 2.0 * v / wp.pi))


@wp.func
def facet_of(patch: Patch) -> Facet:
    """The triangle of the patch's cell that holds its place."""
    u0 = patch.u[1]
    u1 = patch.u[2]
    v0 = patch.v[1]
    v1 = patch.v[2]
    a = (patch.u[0] - u0) / wp.max(u1 - u0, 1.0e-9)
    b = (patch.v[0] - v0) / wp.max(v1 - v0, 1.0e-9)
    # The triangle's corners in (u, v). The cell is cut from (u1, v0) to (u0, v1); the lower half of a ball is
    # drawn the other way round, and is cut from (u0, v0) to (u1, v1).
    first = wp.vec2(u0, v0)
    second = wp.vec2(u1, v0)
    third = wp.vec2(u0, v1)
    pole = patch.kind == SPHERE and v1 > 0.499 * wp.pi  # whose cells are triangles
    if patch.kind == DISK and v0 == 0.0:
        second = wp.vec2(u1, v1)  # the first is the middle
    elif patch.kind == SPHERE and patch.sign < 0.0 and not pole:
        third = wp.vec2(u1, v1)
        if b > a:
            second = wp.vec2(u0, v1)
    elif a + b > 1.0 and not pole:
        first = wp.vec2(u1, v1)
    facet = Facet()
    facet.u = wp.vec3(first[0], second[0], third[0])
    facet.v = wp.vec3(first[1], second[1], third[1])
    facet.corners = wp.matrix_from_rows(
        patch_point(patch, first[0], first[1]),
        patch_point(patch, second[0], second[1]),
        patch_point(patch, third[0], third[1]),
    )
    facet.normals = wp.matrix_from_rows(
        patch_normal(patch, first[0], first[1]),
        patch_normal(patch, second[0], second[1]),
        patch_normal(patch, third[0], third[1]),
    )
    return facet


@wp.func
def facet_weights(facet: Facet, start: wp.vec3, ray: wp.vec3) -> wp.vec3:
    """Where a ray meets the triangle's plane, in parts of its corners; outside of it some are negative."""
    p = facet.corners[0] - start
    q = facet.corners[1] - start
    r = facet.corners[2] - start
    parts = wp.vec3(wp.dot(wp.cross(q, r), ray), wp.dot(wp.cross(r, p), ray), wp.dot(wp.cross(p, q), ray))
    total = parts[0] + parts[1] + parts[2]
    if wp.abs(total) < 1.0e-12:
        return wp.vec3(1.0, 0.0, 0.0)  # seen edge-on
    return parts / total


@wp.func
def facet_step(facet: Facet, step: wp.vec3) -> wp.vec3:
    """How the weights change with the place, where that moves by `step` within the triangle's plane."""
    p = facet.corners[1] - facet.corners[0]
    q = facet.corners[2] - facet.corners[0]
    normal = wp.cross(p, q)
    normal = normal / wp.max(wp.dot(normal, normal), 1.0e-20)
    second = wp.dot(wp.cross(step, q), normal)
    third = wp.dot(wp.cross(p, step), normal)
    return wp.vec3(-second - third, second, third)


@wp.func
def light_on(
    light: Light, place: wp.vec3, normal: wp.vec3, to_eye: wp.vec3, colour: wp.vec3, surface: wp.vec4
) -> wp.vec3:
    """What one light adds at a place (OpenGL 1.5 specification, section 2.14.1)."""
    to_light = -light.direction
    strength = float(1.0)
    if light.directional == 0:
        to_light = light.position - place
        distance = wp.length(to_light)
        to_light = to_light / distance
        fade = light.attenuation
        aligned = -wp.dot(to_light, light.direction)
        if aligned < light.cutoff:
            return wp.vec3(0.0, 0.0, 0.0)
        strength = wp.pow(aligned, light.exponent) / (fade[0] + distance * (fade[1] + distance * fade[2]))
    total = wp.cw_mul(light.ambient, colour)
    facing = wp.dot(normal, to_light)
    if facing > 0.0:
        total = total + facing * wp.cw_mul(light.diffuse, colour)
        gloss = wp.dot(normal, wp.normalize(to_light + to_eye))
        if gloss > surface[3]:
            total = total + surface[1] * wp.pow(gloss, surface[2]) * light.specular
    return strength * total


@wp.func
def clamp_colour(colour: wp.vec3) -> wp.vec3:
    """Keep within what a frame buffer holds."""
    return wp.vec3(wp.min(colour[0], 1.0), wp.min(colour[1], 1.0), wp.min(colour[2], 1.0))


@wp.func
def light_corner(
    lights: wp.array2d(dtype=Light), world: World, which: int, facet: Facet, corner: int, eye: wp.vec3
) -> wp.vec3:
    """The light at a corner, clamped: of all lights, of those without shadow, or of light `which` alone."""
    place = facet.corners[corner]
    normal = facet.normals[corner]
    to_eye = wp.normalize(eye - place)
    if which >= 0:
        return clamp_colour(
            light_on(lights[world.index, which], place, normal, to_eye, facet.colour, facet.surface)
        )
    total = facet.surface[0] * facet.colour
    for i in range(world.lights):
        if which == ALL_LIGHTS or lights[world.index, i].view == 0:
            light = lights[world.index, i]
            total = total + light_on(light, place, normal, to_eye, facet.colour, facet.surface)
    return clamp_colour(total)


@wp.func
def light_facet(
    lights: wp.array2d(dtype=Light), world: World, which: int, facet: Facet, eye: wp.vec3
) -> wp.vec3:
    """The light at the place of a triangle, whose corners and normals are in the world's frame."""
    total = wp.vec3(0.0, 0.0, 0.0)
    for i in range(3):
        total = total + facet.weights[i] * light_corner(lights, world, which, facet, i, eye)
    return wp.vec3(wp.clamp(total[0], 0.0, 1.0), wp.clamp(total[1], 0.0, 1.0), wp.clamp(total[2], 0.0, 1.0))
