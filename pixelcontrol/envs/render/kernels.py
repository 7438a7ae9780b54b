"""A ray tracer in NVIDIA Warp that draws an `mjvScene` by the rules of MuJoCo's fixed-function OpenGL renderer.

Why not MuJoCo Warp's renderer: it shades by rules of its own and knows no sites, tendons, reflection or
transparency, and policies trained on its pictures fail on OpenGL's. A picture is made in four launches:

    look    a thread per world             unpack camera and lights; set up the views
    place   a thread per world and geom    unpack the geom; bound it in each view
    find    a thread per pixel corner      which geom is seen there
    shade   a thread per pixel             light, texture, shadow, reflection; 4 samples where corners disagree

A *view* is a point with three axes from which rays start: the camera (0), the camera mirrored by the reflecting
plane (1), each light that casts shadows (2...). Every ray starts in a view, so it can meet a geom only within the
geom's rectangle in that view, and the view's point in the geom's frame is computed once.

The rules, from MuJoCo's render_gl3.c (classic renderer, 3.17):
- light: the OpenGL 1.5 lighting model with a local viewer, clamped to [0, 1], then times the texture;
- shadow lights are added one by one where unshadowed; their ambient part too is absent in shadow;
- the first reflective plane or box adds its mirror image, times reflectance, lit by all lights, unshadowed;
- transparent geoms (alpha < 0.995) come last, lit by all lights, unshadowed, and are blended twice;
- a plane is lit at the corners of its grid and interpolated between;
- a pixel has four samples, but each geom in it is shaded once, at the middle of the pixel.

Unusual: functions take the few arrays they need, not one structure with all, which Warp would copy at each call;
and `x = float(0.0)` is how Warp declares a variable that changes within a loop.
"""

# Warp's types are calls, which mypy cannot read, and its subset of Python forbids what these rules propose.
# mypy: ignore-errors
# ruff: noqa: UP018, RUF046, SIM108, SIM109

import math

import warp as wp

from pixelcontrol.envs.render.scene import CAMERA_SIZE, GEOM_SIZE, LIGHT_SIZE

wp.set_module_options({"enable_backward": False})

PLANE, SPHERE, CAPSULE, ELLIPSOID, CYLINDER, BOX, MESH = (wp.constant(kind) for kind in (0, 2, 3, 4, 5, 6, 7))
CAMERA, MIRROR, FIRST_LIGHT = wp.constant(0), wp.constant(1), wp.constant(2)  # views
ALL_LIGHTS, PLAIN_LIGHTS = wp.constant(-1), wp.constant(-2)
NOTHING = wp.constant(-1)
MIRROR_CODE = wp.constant(1 << 14)
FAR = wp.constant(1.0e8)
DISK = wp.constant(-2)  # not a geom's kind: the end of a cylinder
SLICE, STACK = (
    wp.constant(2.0 * math.pi / 28.0),
    wp.constant(math.pi / 16.0),
)  # visual/quality's usual numbers
ROUND = wp.constant(0.9965)  # what stands for a circle is a polygon of 28 sides, on average so much smaller
OPAQUE = wp.constant(0.995)  # render_gl3.c: with less alpha a geom is transparent


@wp.struct
class Material:
    """How a geom's surface looks; the last of the array is for geoms without material."""

    surface: wp.vec4  # emission, specular, shininess, reflectance
    texture: wp.int32  # index, or NOTHING
    uniform: wp.int32  # the texture repeats per metre, not per object
    repeat: wp.vec2


@wp.struct
class Texture:
    """One texture with its mip levels, in the common array of texels."""

    is_cube: wp.int32
    width: wp.int32
    height: wp.int32
    levels: wp.int32
    start: wp.int32


@wp.struct
class Light:
    """A light: pose from the row, the rest from the scene."""

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
class View:
    """Where rays start."""

    origin: wp.vec3
    axes: wp.mat33  # rows are right, up, forward
    parallel: wp.int32  # rays are parallel to forward, not through the origin


@wp.struct
class World:
    """What else `look` finds out."""

    count: wp.int32  # geoms
    reflector: wp.int32  # the geom that mirrors, or NOTHING
    half: wp.float32  # half height of the camera's view at distance 1
    centre: wp.float32  # and its middle, upwards


@wp.struct
class Shape:
    """What a ray can meet."""

    kind: wp.int32
    size: wp.vec3
    rotation: wp.mat33
    half: wp.vec2  # of a plane's grid
    mesh: wp.uint64


@wp.struct
class Coat:
    """What a ray finds there."""

    position: wp.vec3
    rgba: wp.vec4
    surface: wp.vec4  # emission, specular, its exponent, the least cosine that is worth a power
    reflectance: wp.float32
    texture: wp.int32
    unit: wp.vec3  # from the geom's frame to a cube texture's directions
    scale: wp.vec2  # from the geom's frame to a flat texture's coordinates
    first: wp.vec2  # width of the first cell of a plane's grid, along x and y
    cell: wp.vec2  # width of the other cells
    normals: wp.int32  # a mesh's first corner normal


@wp.struct
class Hit:
    """Where a ray meets a geom; `geom` is NOTHING where it meets none."""

    geom: wp.int32
    part: wp.int32  # side of a box, 1 for a cylinder's caps, triangle of a mesh
    distance: wp.float32
    u: wp.float32  # place on the triangle
    v: wp.float32


# --------------------------------------------------------------------------------------------------------------
# Rays against geoms, in the geom's own frame. Only entries count: OpenGL does not draw inner faces.


@wp.func
def ray_sphere(start: wp.vec3, ray: wp.vec3, radius: float):
    """Distance, or FAR."""
    b = wp.dot(start, ray)
    root = b * b - wp.dot(start, start) + radius * radius
    if root < 0.0:
        return FAR
    return -b - wp.sqrt(root)


@wp.func
def ray_ellipsoid(start: wp.vec3, ray: wp.vec3, size: wp.vec3):
    """Distance, or FAR."""
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
    """Distance to the side of a cylinder, without its caps, or FAR."""
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
    """Distance, or FAR."""
    distance = ray_tube(start, ray, radius, half)
    if distance < FAR:
        return distance
    end = wp.vec3(0.0, 0.0, half)
    return wp.min(ray_sphere(start - end, ray, radius), ray_sphere(start + end, ray, radius))


@wp.func
def ray_box(start: wp.vec3, ray: wp.vec3, size: wp.vec3):
    """Distance, or FAR, and the side entered: its axis, plus 3 on the negative end."""
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
def ray_shape(shape: Shape, start: wp.vec3, ray: wp.vec3) -> Hit:
    """Meet one geom; `distance` is FAR where the ray passes by, and may be negative."""
    hit = Hit()
    hit.distance = FAR
    size = shape.size
    if shape.kind == CAPSULE:
        hit.distance = ray_capsule(start, ray, size[0], size[2])
    elif shape.kind == PLANE:
        if wp.abs(ray[2]) > 1.0e-9:
            distance = -start[2] / ray[2]
            x = start[0] + distance * ray[0]
            y = start[1] + distance * ray[1]
            if wp.abs(x) <= shape.half[0] and wp.abs(y) <= shape.half[1]:
                hit.distance = distance
    elif shape.kind == SPHERE:
        hit.distance = ray_sphere(start, ray, size[0])
    elif shape.kind == ELLIPSOID:
        hit.distance = ray_ellipsoid(start, ray, size)
    elif shape.kind == CYLINDER:
        hit.distance = ray_tube(start, ray, size[0], size[2])
        if wp.abs(ray[2]) > 1.0e-9:
            cap = (-wp.sign(ray[2]) * size[2] - start[2]) / ray[2]
            x = start[0] + cap * ray[0]
            y = start[1] + cap * ray[1]
            if cap < hit.distance and x * x + y * y < size[0] * size[0]:
                hit.distance = cap
                hit.part = 1
    elif shape.kind == BOX:
        distance, side = ray_box(start, ray, size)
        hit.distance = distance
        hit.part = side
    elif shape.kind == MESH:
        query = wp.mesh_query_ray(shape.mesh, start, ray, FAR)
        if query.result:
            hit.distance = query.t
            hit.part = query.face
            hit.u = query.u
            hit.v = query.v
    return hit


@wp.func
def normal_at(
    shape: Shape, hit: Hit, place: wp.vec3, first: int, mesh_normals: wp.array(dtype=wp.vec3)
) -> wp.vec3:
    """The unit normal at `place`, both in the geom's frame."""
    size = shape.size
    normal = wp.vec3(0.0, 0.0, 1.0)
    if shape.kind == CAPSULE:
        normal = wp.vec3(place[0], place[1], place[2] - wp.clamp(place[2], -size[2], size[2]))
    elif shape.kind == SPHERE:
        normal = place
    elif shape.kind == ELLIPSOID:
        normal = wp.cw_div(place, wp.cw_mul(size, size))
    elif shape.kind == CYLINDER:
        if hit.part == 0:
            normal = wp.vec3(place[0], place[1], 0.0)
        else:
            normal = wp.vec3(0.0, 0.0, place[2])
    elif shape.kind == BOX:
        normal = wp.vec3(0.0, 0.0, 0.0)
        if hit.part < 3:
            normal[hit.part] = 1.0
        else:
            normal[hit.part - 3] = -1.0
    elif shape.kind == MESH:
        corner = first + 3 * hit.part
        normal = (
            hit.u * mesh_normals[corner]
            + hit.v * mesh_normals[corner + 1]
            + (1.0 - hit.u - hit.v) * mesh_normals[corner + 2]
        )
    return wp.normalize(normal)


@wp.func
def trace(
    shapes: wp.array2d(dtype=Shape),
    bounds: wp.array3d(dtype=wp.vec4),
    starts: wp.array3d(dtype=wp.vec3),
    count: int,
    world: int,
    view: int,
    at: wp.vec2,
    ray: wp.vec3,
    beyond: float,
    ignored: int,
) -> Hit:
    """The first geom but `ignored` that a ray from a view's point meets beyond a distance.

    `at` is the ray in the view's own coordinates: right and up at distance 1 forward.
    """
    best = Hit()
    best.geom = NOTHING
    best.distance = FAR
    for geom in range(count):
        box = bounds[world, view, geom]
        if at[0] >= box[0] and at[1] >= box[1] and at[0] <= box[2] and at[1] <= box[3] and geom != ignored:
            shape = shapes[world, geom]
            hit = ray_shape(shape, starts[world, view, geom], ray * shape.rotation)
            if hit.distance > beyond and hit.distance < best.distance:
                best = hit
                best.geom = geom
    return best


@wp.func
def in_shadow(
    shapes: wp.array2d(dtype=Shape),
    bounds: wp.array3d(dtype=wp.vec4),
    starts: wp.array3d(dtype=wp.vec3),
    view: View,
    light_view: int,
    half: float,
    count: int,
    world: int,
    place: wp.vec3,
    lit: int,
) -> bool:
    """Whether a geom but `lit` stands between a light and a place. Outside of its shadow map nothing does."""
    seen = view.axes * (place - view.origin)
    if seen[2] <= 0.0:
        return False
    distance = seen[2]
    at = wp.vec2(seen[0], seen[1])
    ray = wp.vec3(view.axes[2, 0], view.axes[2, 1], view.axes[2, 2])
    shift = wp.vec3(0.0, 0.0, 0.0)
    if view.parallel == 1:
        shift = place - distance * ray - view.origin
    else:
        at = at / distance
        distance = wp.length(seen)
        ray = (place - view.origin) / distance
    if wp.abs(at[0]) > half or wp.abs(at[1]) > half:
        return False
    for geom in range(count):
        box = bounds[world, light_view, geom]
        if at[0] >= box[0] and at[1] >= box[1] and at[0] <= box[2] and at[1] <= box[3] and geom != lit:
            shape = shapes[world, geom]
            start = starts[world, light_view, geom] + shift * shape.rotation
            hit = ray_shape(shape, start, ray * shape.rotation)
            if hit.distance > 0.0 and hit.distance < 0.999 * distance:
                return True
    return False


# --------------------------------------------------------------------------------------------------------------
# Light


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
def light_sum(
    lights: wp.array2d(dtype=Light),
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
        return clamp_colour(light_on(lights[world, which], place, normal, to_eye, colour, surface))
    total = surface[0] * colour
    for i in range(lights.shape[1]):
        if which == ALL_LIGHTS or lights[world, i].view == 0:
            total = total + light_on(lights[world, i], place, normal, to_eye, colour, surface)
    return clamp_colour(total)


# OpenGL lights the corners of the triangles that stand for a geom and interpolates between them. A triangle here
# is a half of a cell of the grid that two parameters u and v draw on a surface: x and y of a plane, two sides of a
# box, azimuth and height of a tube, azimuth and elevation of a ball, azimuth and radius of a disk.


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
    """A triangle: its corners, and the surface's normals there."""

    corners: wp.mat33  # rows
    normals: wp.mat33


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
def patch_at(shape: Shape, coat: Coat, hit: Hit, place: wp.vec3) -> Patch:
    """The surface around a place of a geom that is not a mesh."""
    patch = Patch()
    patch.kind = shape.kind
    patch.size = shape.size
    patch.side = hit.part
    patch.sign = 1.0
    if place[2] < 0.0:
        patch.sign = -1.0
    if shape.kind == PLANE:
        patch.u = grid_cell(place[0], shape.half[0], coat.first[0], coat.cell[0])
        patch.v = grid_cell(place[1], shape.half[1], coat.first[1], coat.cell[1])
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
    if patch.kind == SPHERE and v1 > 0.499 * wp.pi:
        third = wp.vec2(u0, v1)  # the pole
    elif patch.kind == DISK and v0 == 0.0:
        second = wp.vec2(u1, v1)  # the first is the middle
        third = wp.vec2(u0, v1)
    elif patch.kind == SPHERE and patch.sign < 0.0:
        third = wp.vec2(u1, v1)
        if b > a:
            second = wp.vec2(u0, v1)
    elif a + b > 1.0:
        first = wp.vec2(u1, v1)
    facet = Facet()
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
def light_facet(
    lights: wp.array2d(dtype=Light),
    world: int,
    which: int,
    facet: Facet,
    weights: wp.vec3,
    eye: wp.vec3,
    colour: wp.vec3,
    surface: wp.vec4,
) -> wp.vec3:
    """The light on a triangle, whose corners and normals are in the world's frame."""
    total = wp.vec3(0.0, 0.0, 0.0)
    for i in range(3):
        total = total + weights[i] * light_sum(
            lights, world, which, facet.corners[i], facet.normals[i], eye, colour, surface
        )
    return wp.vec3(wp.clamp(total[0], 0.0, 1.0), wp.clamp(total[1], 0.0, 1.0), wp.clamp(total[2], 0.0, 1.0))


# --------------------------------------------------------------------------------------------------------------
# Textures: trilinear, as GL_LINEAR_MIPMAP_LINEAR


@wp.func
def texel(texels: wp.array(dtype=wp.uint32), at: int) -> wp.vec3:
    """Unpack one texel, each channel in [0, 255]."""
    word = texels[at]
    byte = wp.uint32(255)
    return wp.vec3(
        float(word & byte), float((word >> wp.uint32(8)) & byte), float((word >> wp.uint32(16)) & byte)
    )


@wp.func
def bilinear(
    texels: wp.array(dtype=wp.uint32), start: int, width: int, height: int, s: float, t: float, wrap: bool
) -> wp.vec3:
    """Sample one face of one level."""
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
    low = start + y0 * width
    high = start + y1 * width
    return (1.0 - b) * ((1.0 - a) * texel(texels, low + x0) + a * texel(texels, low + x1)) + b * (
        (1.0 - a) * texel(texels, high + x0) + a * texel(texels, high + x1)
    )


@wp.func
def trilinear(
    texels: wp.array(dtype=wp.uint32), texture: Texture, face: int, s: float, t: float, footprint: float
) -> wp.vec3:
    """Sample in [0, 1] where one pixel covers `footprint` texels of the finest level."""
    faces = int(1)
    if texture.is_cube == 1:
        faces = 6
    level = wp.clamp(wp.log2(wp.max(footprint, 1.0e-6)), 0.0, float(texture.levels - 1))
    start = texture.start
    width = texture.width
    height = texture.height
    for _skipped in range(int(level)):
        start = start + faces * width * height
        width = wp.max(width / 2, 1)
        height = wp.max(height / 2, 1)
    wrap = texture.is_cube == 0
    sample = bilinear(texels, start + face * width * height, width, height, s, t, wrap)
    blend = level - wp.floor(level)
    if blend > 0.0:
        start = start + faces * width * height
        width = wp.max(width / 2, 1)
        height = wp.max(height / 2, 1)
        coarse = bilinear(texels, start + face * width * height, width, height, s, t, wrap)
        sample = (1.0 - blend) * sample + blend * coarse
    return sample / 255.0


@wp.func
def sample_cube(
    texels: wp.array(dtype=wp.uint32), texture: Texture, toward: wp.vec3, across: wp.vec3, down: wp.vec3
) -> wp.vec3:
    """Sample a cube map (OpenGL 1.5 specification, section 3.8.6).

    `across` and `down` are how the direction `toward` changes over one pixel.
    """
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
    s_axis = wp.vec3(sign, 0.0, 0.0)
    t_axis = wp.vec3(0.0, -1.0, 0.0)
    if major == 0:
        s_axis = wp.vec3(0.0, 0.0, -sign)
    elif major == 1:
        s_axis = wp.vec3(1.0, 0.0, 0.0)
        t_axis = wp.vec3(0.0, 0.0, sign)
    m = wp.abs(toward[major])
    s = wp.dot(s_axis, toward) / m
    t = wp.dot(t_axis, toward) / m
    m_across = sign * across[major]
    m_down = sign * down[major]
    s_across = wp.dot(s_axis, across) - s * m_across
    t_across = wp.dot(t_axis, across) - t * m_across
    s_down = wp.dot(s_axis, down) - s * m_down
    t_down = wp.dot(t_axis, down) - t * m_down
    widest = wp.max(s_across * s_across + t_across * t_across, s_down * s_down + t_down * t_down)
    footprint = 0.5 * float(texture.width) / m * wp.sqrt(widest)
    return trilinear(texels, texture, face, 0.5 * s + 0.5, 0.5 * t + 0.5, footprint)


@wp.func
def sample_surface(
    texels: wp.array(dtype=wp.uint32),
    texture: Texture,
    coat: Coat,
    size: wp.vec3,
    local: wp.vec3,
    over: wp.vec3,
    under: wp.vec3,
) -> wp.vec3:
    """Sample a geom's texture at `local`; `over` and `under` are how `local` changes over one pixel."""
    if texture.is_cube == 1:
        unit = coat.unit
        return sample_cube(
            texels, texture, wp.cw_mul(unit, local), wp.cw_mul(unit, over), wp.cw_mul(unit, under)
        )
    w = float(texture.width) * coat.scale[0]
    h = float(texture.height) * coat.scale[1]
    widest = wp.max(
        w * w * over[0] * over[0] + h * h * over[1] * over[1],
        w * w * under[0] * under[0] + h * h * under[1] * under[1],
    )
    # Coordinates count from a plane's corner if it has one, else from its middle (render_context.c, makePlane).
    s = coat.scale[0] * (local[0] + size[0])
    t = coat.scale[1] * (local[1] - size[1])
    return trilinear(texels, texture, 0, s, t, wp.sqrt(widest))


# --------------------------------------------------------------------------------------------------------------
# Colour


@wp.func
def surface_colour(
    shapes: wp.array2d(dtype=Shape),
    coats: wp.array2d(dtype=Coat),
    lights: wp.array2d(dtype=Light),
    views: wp.array2d(dtype=View),
    bounds: wp.array3d(dtype=wp.vec4),
    starts: wp.array3d(dtype=wp.vec3),
    textures: wp.array(dtype=Texture),
    texels: wp.array(dtype=wp.uint32),
    mesh_normals: wp.array(dtype=wp.vec3),
    count: int,
    world: int,
    view: int,
    hit: Hit,
    ray: wp.vec3,
    shade_ray: wp.vec3,
    across: wp.vec3,
    down: wp.vec3,
    which: int,
    tint: float,
) -> wp.vec3:
    """Light times texture where a ray from the camera, or its mirror image, meets a geom.

    `across` and `down` are how the unit `ray` changes over one pixel. With PLAIN_LIGHTS the shadow lights are
    added where they shine.
    """
    shape = shapes[world, hit.geom]
    coat = coats[world, hit.geom]
    eye = views[world, view].origin
    place = eye + hit.distance * ray
    local_ray = ray * shape.rotation
    local = starts[world, view, hit.geom] + hit.distance * local_ray
    local_normal = normal_at(shape, hit, local, coat.normals, mesh_normals)
    colour = tint * wp.vec3(coat.rgba[0], coat.rgba[1], coat.rgba[2])

    total = wp.vec3(0.0, 0.0, 0.0)
    facet = Facet()
    weights = wp.vec3(0.0, 0.0, 0.0)
    if shape.kind == MESH:
        normal = shape.rotation * normal_at(shape, hit, local, coat.normals, mesh_normals)
        total = light_sum(lights, world, which, place, normal, eye, colour, coat.surface)
        facet.normals = wp.matrix_from_rows(normal, normal, normal)
        facet.corners = wp.matrix_from_rows(place, place, place)
        weights = wp.vec3(1.0, 0.0, 0.0)
    else:
        facet = facet_of(patch_at(shape, coat, hit, local))
        weights = facet_weights(facet, starts[world, view, hit.geom], shade_ray * shape.rotation)
        for i in range(3):
            facet.corners[i] = coat.position + shape.rotation * facet.corners[i]
            facet.normals[i] = shape.rotation * facet.normals[i]
        total = light_facet(lights, world, which, facet, weights, eye, colour, coat.surface)
    if which == PLAIN_LIGHTS:
        for i in range(lights.shape[1]):
            seen_from = lights[world, i].view
            if seen_from != 0:
                half = lights[world, i].shadow_half
                if not in_shadow(
                    shapes,
                    bounds,
                    starts,
                    views[world, seen_from],
                    seen_from,
                    half,
                    count,
                    world,
                    place,
                    hit.geom,
                ):
                    total = total + light_facet(lights, world, i, facet, weights, eye, colour, coat.surface)
    if coat.texture == NOTHING:
        return total
    # How the place moves over one pixel, within the surface's tangent plane.
    slope = hit.distance / wp.dot(local_normal, local_ray)
    local_across = across * shape.rotation
    local_down = down * shape.rotation
    over = hit.distance * local_across - slope * wp.dot(local_normal, local_across) * local_ray
    under = hit.distance * local_down - slope * wp.dot(local_normal, local_down) * local_ray
    paint = sample_surface(texels, textures[coat.texture], coat, shape.size, local, over, under)
    return wp.cw_mul(total, paint)


@wp.func
def mirrored(vector: wp.vec3, normal: wp.vec3) -> wp.vec3:
    """The mirror image of a direction."""
    return vector - 2.0 * wp.dot(vector, normal) * normal


@wp.func
def upward(rotation: wp.mat33) -> wp.vec3:
    """A geom's z axis."""
    return wp.vec3(rotation[0, 2], rotation[1, 2], rotation[2, 2])


@wp.func
def mirror_image(
    shapes: wp.array2d(dtype=Shape),
    bounds: wp.array3d(dtype=wp.vec4),
    starts: wp.array3d(dtype=wp.vec3),
    state: World,
    world: int,
    hit: Hit,
    at: wp.vec2,
    ray: wp.vec3,
) -> Hit:
    """What a camera ray that meets `hit` sees mirrored there: only the upper side of a plane or box mirrors."""
    image = Hit()
    image.geom = NOTHING
    if hit.geom == state.reflector and (shapes[world, hit.geom].kind == PLANE or hit.part == 2):
        bounce = mirrored(ray, upward(shapes[world, hit.geom].rotation))
        image = trace(shapes, bounds, starts, state.count, world, MIRROR, at, bounce, hit.distance, hit.geom)
    return image


@wp.func
def pixel_colour(
    shapes: wp.array2d(dtype=Shape),
    coats: wp.array2d(dtype=Coat),
    lights: wp.array2d(dtype=Light),
    views: wp.array2d(dtype=View),
    bounds: wp.array3d(dtype=wp.vec4),
    starts: wp.array3d(dtype=wp.vec3),
    textures: wp.array(dtype=Texture),
    texels: wp.array(dtype=wp.uint32),
    mesh_normals: wp.array(dtype=wp.vec3),
    skybox: int,
    state: World,
    world: int,
    first: Hit,
    first_image: Hit,
    at: wp.vec2,
    ray: wp.vec3,
    shade_ray: wp.vec3,
    pixel: float,
) -> wp.vec3:
    """The colour along one camera ray that meets `first`, and `first_image` in the mirror if that is one.

    `pixel` is a pixel's width in the camera's view.
    """
    axes = views[world, CAMERA].axes
    scale = pixel / wp.sqrt(1.0 + wp.dot(at, at))
    right = wp.vec3(axes[0, 0], axes[0, 1], axes[0, 2])
    up = wp.vec3(axes[1, 0], axes[1, 1], axes[1, 2])
    across = scale * (right - wp.dot(right, ray) * ray)
    down = scale * (up - wp.dot(up, ray) * ray)

    hit = first
    image = first_image
    total = wp.vec3(0.0, 0.0, 0.0)
    clear = float(1.0)
    colour = wp.vec3(0.0, 0.0, 0.0)
    while hit.geom != NOTHING and clear > 0.0:
        coat = coats[world, hit.geom]
        alpha = coat.rgba[3]
        if shapes[world, hit.geom].kind == PLANE and starts[world, CAMERA, hit.geom][2] < 0.0:
            alpha = 0.3 * alpha  # render_gl3.c: a plane seen from behind
        which = int(PLAIN_LIGHTS)
        if alpha < OPAQUE:
            which = ALL_LIGHTS
        colour = surface_colour(
            shapes,
            coats,
            lights,
            views,
            bounds,
            starts,
            textures,
            texels,
            mesh_normals,
            state.count,
            world,
            CAMERA,
            hit,
            ray,
            shade_ray,
            across,
            down,
            which,
            1.0,
        )
        if image.geom != NOTHING:
            normal = upward(shapes[world, hit.geom].rotation)
            colour = colour + surface_colour(
                shapes,
                coats,
                lights,
                views,
                bounds,
                starts,
                textures,
                texels,
                mesh_normals,
                state.count,
                world,
                MIRROR,
                image,
                mirrored(ray, normal),
                mirrored(shade_ray, normal),
                mirrored(across, normal),
                mirrored(down, normal),
                ALL_LIGHTS,
                coat.reflectance,
            )
        rest = float(0.0)
        if alpha < OPAQUE:
            rest = (1.0 - alpha) * (1.0 - alpha)  # blended twice: front to back, then back to front
        total = total + clear * (1.0 - rest) * clamp_colour(colour)
        clear = clear * rest
        if clear > 0.0:
            hit = trace(shapes, bounds, starts, state.count, world, CAMERA, at, ray, hit.distance, hit.geom)
    if clear > 0.0 and skybox >= 0:
        sky = sample_cube(
            texels,
            textures[skybox],
            wp.vec3(ray[0], ray[2], -ray[1]),
            wp.vec3(across[0], across[2], -across[1]),
            wp.vec3(down[0], down[2], -down[1]),
        )
        total = total + clear * sky
    return total


# --------------------------------------------------------------------------------------------------------------
# Kernels


@wp.func
def vector_at(rows: wp.array2d(dtype=wp.float32), world: int, at: int) -> wp.vec3:
    """Three numbers of a row."""
    return wp.vec3(rows[world, at], rows[world, at + 1], rows[world, at + 2])


@wp.func
def material_of(row: float, materials: int) -> int:
    """The material's index; the last is for geoms that have none."""
    if row < 0.0:
        return materials - 1
    return int(row)


@wp.func
def axes_along(forward: wp.vec3) -> wp.mat33:
    """Axes with a given forward; how they are turned about it is all the same."""
    side = wp.vec3(1.0, 0.0, 0.0)
    if wp.abs(forward[0]) > 0.9:
        side = wp.vec3(0.0, 1.0, 0.0)
    up = wp.normalize(wp.cross(forward, side))
    return wp.matrix_from_rows(wp.cross(forward, up), up, forward)


@wp.kernel
def look(
    rows: wp.array2d(dtype=wp.float32),
    fixed_lights: wp.array(dtype=Light),
    materials: wp.array(dtype=Material),
    worlds: wp.array(dtype=World),
    views: wp.array2d(dtype=View),
    lights: wp.array2d(dtype=Light),
):
    """Unpack camera and lights, find the geom that mirrors, and set up the views."""
    world = wp.tid()
    state = World()
    state.count = int(rows[world, 0])
    eye = vector_at(rows, world, 1)
    forward = wp.normalize(vector_at(rows, world, 4))
    up = wp.normalize(vector_at(rows, world, 7))
    camera = View()
    camera.origin = eye
    camera.axes = wp.matrix_from_rows(wp.cross(forward, up), up, forward)
    views[world, CAMERA] = camera
    state.half = rows[world, 10]
    state.centre = rows[world, 11]

    for i in range(fixed_lights.shape[0]):
        at = 1 + wp.static(CAMERA_SIZE) + i * wp.static(LIGHT_SIZE)
        light = fixed_lights[i]
        light.position = vector_at(rows, world, at)
        light.direction = vector_at(rows, world, at + 3)
        lights[world, i] = light
        if light.view != 0:
            view = View()
            view.origin = light.position
            view.axes = axes_along(light.direction)
            view.parallel = light.directional
            views[world, light.view] = view

    state.reflector = NOTHING
    mirror = View()
    found = int(0)
    first = 1 + wp.static(CAMERA_SIZE) + fixed_lights.shape[0] * wp.static(LIGHT_SIZE)
    for geom in range(state.count):
        at = first + geom * wp.static(GEOM_SIZE)
        kind = int(rows[world, at])
        surface = materials[material_of(rows[world, at + 3], materials.shape[0])].surface
        opaque = rows[world, at + 22] >= OPAQUE
        if found == 0 and (kind == PLANE or kind == BOX) and opaque and surface[3] > 0.0:
            found = 1  # only the first geom that could mirror ever does
            normal = wp.vec3(rows[world, at + 12], rows[world, at + 15], rows[world, at + 18])
            position = vector_at(rows, world, at + 7)
            if kind == BOX:
                position = position + rows[world, at + 6] * normal
            height = wp.dot(eye - position, normal)
            if height > 0.0:
                state.reflector = geom
                mirror.origin = eye - 2.0 * height * normal
                flip = wp.identity(n=3, dtype=wp.float32) - 2.0 * wp.outer(normal, normal)
                mirror.axes = camera.axes * flip
    views[world, MIRROR] = mirror
    worlds[world] = state


@wp.kernel
def place(
    rows: wp.array2d(dtype=wp.float32),
    worlds: wp.array(dtype=World),
    views: wp.array2d(dtype=View),
    materials: wp.array(dtype=Material),
    grid: wp.array2d(dtype=wp.vec3),
    meshes: wp.array(dtype=wp.uint64),
    mesh_box: wp.array2d(dtype=wp.vec3),
    mesh_start: wp.array(dtype=wp.int32),
    first: int,
    shapes: wp.array2d(dtype=Shape),
    coats: wp.array2d(dtype=Coat),
    bounds: wp.array3d(dtype=wp.vec4),
    starts: wp.array3d(dtype=wp.vec3),
):
    """Unpack one geom, and bound it in each view.

    `grid` holds each plane's half width, width of the first cell and of the others, along x and y; `mesh_box` the
    middle and half widths of each mesh; `first` is where the geoms begin in a row.
    """
    world, geom = wp.tid()
    if geom >= worlds[world].count:
        return
    at = first + geom * wp.static(GEOM_SIZE)
    data = int(rows[world, at + 1])
    shape = Shape()
    shape.kind = int(rows[world, at])
    shape.size = vector_at(rows, world, at + 4)
    shape.rotation = wp.matrix_from_rows(
        vector_at(rows, world, at + 10), vector_at(rows, world, at + 13), vector_at(rows, world, at + 16)
    )
    coat = Coat()
    coat.position = vector_at(rows, world, at + 7)
    if shape.kind == SPHERE or shape.kind == ELLIPSOID:
        shape.size = ROUND * shape.size
    elif shape.kind == CAPSULE or shape.kind == CYLINDER:
        shape.size = wp.vec3(ROUND * shape.size[0], ROUND * shape.size[1], shape.size[2])
    coat.rgba = wp.vec4(
        rows[world, at + 19], rows[world, at + 20], rows[world, at + 21], rows[world, at + 22]
    )
    material = materials[material_of(rows[world, at + 3], materials.shape[0])]
    exponent = wp.max(128.0 * material.surface[2], 1.0e-3)
    coat.surface = wp.vec4(material.surface[0], material.surface[1], exponent, wp.pow(1.0e-3, 1.0 / exponent))
    coat.reflectance = material.surface[3]
    coat.texture = material.texture
    coat.unit = wp.vec3(1.0, 1.0, 1.0)
    if material.uniform == 0:
        for axis in range(3):
            coat.unit[axis] = 1.0 / wp.max(shape.size[axis], 1.0e-6)
    coat.scale = wp.vec2(0.5 * material.repeat[0] * coat.unit[0], -0.5 * material.repeat[1] * coat.unit[1])

    centre = wp.vec3(0.0, 0.0, 0.0)
    half = shape.size
    if shape.kind == CAPSULE:
        half = half + wp.vec3(0.0, 0.0, shape.size[0])
    elif shape.kind == PLANE:
        x = grid[data, 0]
        y = grid[data, 1]
        shape.half = wp.vec2(x[0], y[0])
        coat.first = wp.vec2(x[1], y[1])
        coat.cell = wp.vec2(x[2], y[2])
        half = wp.vec3(x[0], y[0], 0.0)
    elif shape.kind == MESH:
        mesh = data / 2  # MuJoCo numbers each mesh twice: itself and its convex hull
        shape.mesh = meshes[mesh]
        coat.normals = 3 * mesh_start[mesh]
        centre = mesh_box[mesh, 0]
        half = mesh_box[mesh, 1]
    shapes[world, geom] = shape
    coats[world, geom] = coat

    for i in range(views.shape[1]):
        view = views[world, i]
        starts[world, i, geom] = (view.origin - coat.position) * shape.rotation
        low = wp.vec2(FAR, FAR)
        high = wp.vec2(-FAR, -FAR)
        everywhere = int(0)
        for corner in range(8):
            sign = wp.vec3(float(2 * (corner & 1) - 1), float((corner & 2) - 1), float((corner & 4) / 2 - 1))
            point = coat.position + shape.rotation * (centre + wp.cw_mul(sign, half))
            seen = view.axes * (point - view.origin)
            if view.parallel == 0:
                if seen[2] < 1.0e-3:
                    everywhere = 1  # beside the view's point, where a rectangle makes no sense
                seen = seen / seen[2]
            low = wp.vec2(wp.min(low[0], seen[0]), wp.min(low[1], seen[1]))
            high = wp.vec2(wp.max(high[0], seen[0]), wp.max(high[1], seen[1]))
        if everywhere == 1:
            low = wp.vec2(-FAR, -FAR)
            high = wp.vec2(FAR, FAR)
        bounds[world, i, geom] = wp.vec4(low[0], low[1], high[0], high[1])


@wp.func
def camera_point(state: World, x: float, y: float, height: int, width: int) -> wp.vec2:
    """Where a point of the image, in pixels from its upper left, lies in the camera's view."""
    scale = 2.0 * state.half / float(height)
    return wp.vec2((x - 0.5 * float(width)) * scale, state.centre + (0.5 * float(height) - y) * scale)


@wp.func
def camera_ray(at: wp.vec2, axes: wp.mat33) -> wp.vec3:
    """The unit ray through a point of the camera's view."""
    return wp.normalize(wp.vec3(at[0], at[1], 1.0) * axes)


@wp.func
def part_code(shapes: wp.array2d(dtype=Shape), world: int, hit: Hit) -> int:
    """One number for a geom and the side of it that is hit; NOTHING's is 0."""
    if hit.geom == NOTHING:
        return 0
    if shapes[world, hit.geom].kind == MESH:
        return 8 * (hit.geom + 1)
    return 8 * (hit.geom + 1) + hit.part


@wp.func
def code_at(
    shapes: wp.array2d(dtype=Shape),
    bounds: wp.array3d(dtype=wp.vec4),
    starts: wp.array3d(dtype=wp.vec3),
    state: World,
    world: int,
    at: wp.vec2,
    ray: wp.vec3,
) -> int:
    """What is seen along a camera ray, as one number: the part's code, and above it that of its mirror image."""
    hit = trace(shapes, bounds, starts, state.count, world, CAMERA, at, ray, 0.0, NOTHING)
    image = mirror_image(shapes, bounds, starts, state, world, hit, at, ray)
    return part_code(shapes, world, hit) + MIRROR_CODE * part_code(shapes, world, image)


@wp.func
def meet(
    shapes: wp.array2d(dtype=Shape),
    starts: wp.array3d(dtype=wp.vec3),
    world: int,
    view: int,
    code: int,
    ray: wp.vec3,
) -> Hit:
    """Where a ray from a view's point meets the geom of a part's code."""
    hit = Hit()
    hit.geom = code / 8 - 1
    if code > 0:
        shape = shapes[world, hit.geom]
        hit = ray_shape(shape, starts[world, view, hit.geom], ray * shape.rotation)
        hit.geom = code / 8 - 1
    return hit


@wp.kernel
def find(
    worlds: wp.array(dtype=World),
    views: wp.array2d(dtype=View),
    shapes: wp.array2d(dtype=Shape),
    bounds: wp.array3d(dtype=wp.vec4),
    starts: wp.array3d(dtype=wp.vec3),
    height: int,
    width: int,
    codes: wp.array3d(dtype=wp.int32),
):
    """What is seen at each pixel corner."""
    world, row, column = wp.tid()
    state = worlds[world]
    at = camera_point(state, float(column), float(row), height, width)
    ray = camera_ray(at, views[world, CAMERA].axes)
    codes[world, row, column] = code_at(shapes, bounds, starts, state, world, at, ray)


@wp.func
def sample_offset(sample: int) -> wp.vec2:
    """Where in a pixel, from its middle, the rasteriser takes its four samples."""
    x = float(sample) * 0.25 - 0.375
    y = float((2 * sample + 1 - sample / 2 + 4) % 4) * 0.25 - 0.375
    return wp.vec2(x, y)


@wp.kernel
def shade(
    worlds: wp.array(dtype=World),
    views: wp.array2d(dtype=View),
    shapes: wp.array2d(dtype=Shape),
    coats: wp.array2d(dtype=Coat),
    lights: wp.array2d(dtype=Light),
    bounds: wp.array3d(dtype=wp.vec4),
    starts: wp.array3d(dtype=wp.vec3),
    textures: wp.array(dtype=Texture),
    texels: wp.array(dtype=wp.uint32),
    mesh_normals: wp.array(dtype=wp.vec3),
    skybox: int,
    codes: wp.array3d(dtype=wp.int32),
    images: wp.array4d(dtype=wp.uint8),
):
    """Colour one pixel."""
    world, row, column = wp.tid()
    height = images.shape[2]
    width = images.shape[3]
    state = worlds[world]
    axes = views[world, CAMERA].axes
    pixel = 2.0 * state.half / float(height)
    x = float(column) + 0.5
    y = float(row) + 0.5
    middle = camera_point(state, x, y, height, width)
    middle_ray = camera_ray(middle, axes)
    up = wp.vec3(0.0, 0.0, 1.0)
    if state.reflector >= 0:
        up = upward(shapes[world, state.reflector].rotation)

    # The parts seen at the four samples. Where the corners agree, the samples do.
    code = codes[world, row, column]
    seen = wp.vec4i(code, code, code, code)
    mixed = (
        code != codes[world, row, column + 1]
        or code != codes[world, row + 1, column]
        or code != codes[world, row + 1, column + 1]
    )
    if mixed:
        for sample in range(4):
            offset = sample_offset(sample)
            at = camera_point(state, x + offset[0], y + offset[1], height, width)
            ray = camera_ray(at, axes)
            seen[sample] = code_at(shapes, bounds, starts, state, world, at, ray)

    total = wp.vec3(0.0, 0.0, 0.0)
    for sample in range(4):
        code = seen[sample]
        weight = float(0.25)
        # A plane, and what is behind everything, look the same from all samples.
        if (
            not mixed
            or code == 0
            or (code % 8 == 0 and shapes[world, code % MIRROR_CODE / 8 - 1].kind == PLANE)
        ):
            for other in range(4):
                if other > sample and seen[other] == code:
                    weight = weight + 0.25
                elif other < sample and seen[other] == code:
                    weight = -4.0  # counted already
        if weight > 0.0:
            at = middle
            ray = middle_ray
            if mixed:
                at = camera_point(
                    state, x + sample_offset(sample)[0], y + sample_offset(sample)[1], height, width
                )
                ray = camera_ray(at, axes)
            hit = meet(shapes, starts, world, CAMERA, code % MIRROR_CODE, ray)
            image = meet(shapes, starts, world, MIRROR, code / MIRROR_CODE, mirrored(ray, up))
            total = total + weight * pixel_colour(
                shapes,
                coats,
                lights,
                views,
                bounds,
                starts,
                textures,
                texels,
                mesh_normals,
                skybox,
                state,
                world,
                hit,
                image,
                at,
                ray,
                middle_ray,
                pixel,
            )
    for channel in range(3):
        images[world, channel, row, column] = wp.uint8(wp.clamp(total[channel], 0.0, 1.0) * 255.0 + 0.5)
