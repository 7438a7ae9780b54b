"""A ray tracer in NVIDIA Warp that draws an `mjvScene` by the rules of MuJoCo's fixed-function OpenGL renderer.

Why not MuJoCo Warp's renderer: it shades by rules of its own and knows no sites, tendons, reflection or
transparency, and policies trained on its pictures fail on OpenGL's. A picture is made in four launches:

    look    a thread per world             unpack camera and lights; set up the views
    place   a thread per world and geom    unpack the geom; bound it in each view
    find    a thread per pixel corner      which geom is seen there
    shade   a thread per pixel             light, texture, shadow, reflection; 4 samples where corners disagree

`rays.py` says what a view is and where a ray meets what, `light.py` how bright it is there, `texture.py` what is
painted on it. A world that several cameras see is as many worlds here.

The rules, from MuJoCo's render_gl3.c (classic renderer, 3.17):
- light: the OpenGL 1.5 lighting model with a local viewer, clamped to [0, 1], then times the texture;
- shadow lights are added one by one where unshadowed; their ambient part too is absent in shadow;
- the first reflective plane or box adds its mirror image, times reflectance, lit by all lights, unshadowed;
- transparent geoms (alpha < 0.995) come last, lit by all lights, unshadowed, and are blended twice;
- a plane is lit at the corners of its grid and interpolated between;
- a pixel has four samples, but each geom in it is shaded once, at the middle of the pixel.

Unusual: what rays need (`Stage`) is apart from the rest (`Paint`), because Warp copies a structure at each call;
and `x = float(0.0)` is how Warp declares a variable that changes within a loop.
"""

# Warp's types are calls, which mypy cannot read, and its subset of Python forbids what these rules propose.
# mypy: ignore-errors
# ruff: noqa: UP018, RUF046, SIM109

import math

import warp as wp

from pixelcontrol.envs.render.light import (
    ALL_LIGHTS,
    PLAIN_LIGHTS,
    Facet,
    Grid,
    Light,
    Patch,
    clamp_colour,
    facet_of,
    facet_step,
    facet_weights,
    light_facet,
    patch_at,
    patch_texture,
)
from pixelcontrol.envs.render.rays import (
    BOX,
    CAMERA,
    CAPSULE,
    CYLINDER,
    ELLIPSOID,
    FAR,
    FIELD,
    MESH,
    MIRROR,
    NOTHING,
    PLANE,
    SPHERE,
    Hit,
    Shape,
    Stage,
    View,
    World,
    field_triangle,
    in_shadow,
    mesh_triangle,
    normal_at,
    ray_geom,
    trace,
)
from pixelcontrol.envs.render.scene import CAMERA_START, GEOM_SIZE, LIGHT_SIZE, LIGHT_START
from pixelcontrol.envs.render.texture import Texture, sample_cube, sample_flat

wp.set_module_options({"enable_backward": False})

# What is seen at a place is one number, its code: SIDES (geom + 1) + the side of a box or cylinder; 0 for nothing.
# Of a mirror image it is the code of what is mirrored + MIRROR_CODE; what mirrors is the world's reflector.
SIDES = wp.constant(8)
MIRROR_CODE = wp.constant(1 << 30)
ROUND = wp.constant(0.9965)  # what stands for a circle is a polygon of 28 sides, on average so much smaller
OPAQUE = wp.constant(0.995)  # render_gl3.c: with less alpha a geom is transparent
GLOW = wp.constant(0.3)  # render_gl3.c: emission of all where there is no light, not even the head's
DEGREE = wp.constant(math.pi / 180.0)


@wp.struct
class Material:
    """What is painted on a geom's surface; the last of the array is for geoms without material."""

    texture: wp.int32  # index, or NOTHING
    flat: wp.int32  # the texture is no cube
    uniform: wp.int32  # the texture repeats per metre, not per object
    repeat: wp.vec2


@wp.struct
class Solid:
    """A mesh."""

    data: wp.uint64  # Warp's own
    middle: wp.vec3  # of the box around it
    half: wp.vec3
    corner: wp.int32  # its first in the arrays of all corners
    wrapped: wp.int32  # it says where its corners lie in a flat texture


@wp.struct
class Coat:
    """What a ray finds on a geom."""

    position: wp.vec3
    rgba: wp.vec4
    surface: wp.vec4  # see `Facet`
    reflectance: wp.float32
    texture: wp.int32
    unit: wp.vec3  # from the geom's frame to a cube texture's directions
    wrapped: wp.int32  # the texture is a flat one wrapped round the geom, not laid over it along z
    scale: wp.vec2  # how much of a flat texture is one round, or one metre
    grid: Grid  # of a plane
    corner: wp.int32  # a mesh's first, in the arrays of all corners


@wp.struct
class Paint:
    """What gives the geoms of all worlds their colours."""

    coats: wp.array2d(dtype=Coat)  # world, geom
    lights: wp.array2d(dtype=Light)  # world, light
    views: wp.array2d(dtype=View)  # world, view
    textures: wp.array(dtype=Texture)
    texels: wp.array(dtype=wp.uint32)
    mesh_normals: wp.array(dtype=wp.vec3)  # one per corner of a triangle, as the next
    mesh_texture: wp.array(dtype=wp.vec2)  # where the corner lies in a flat texture
    skybox: wp.int32  # index of its texture, or NOTHING


@wp.struct
class Beam:
    """A ray through one place of a pixel, with what belongs to the pixel."""

    at: wp.vec2  # the ray in the camera's view
    ray: wp.vec3
    middle: wp.vec3  # the ray through the pixel's middle, for which the pixel is lit
    right: wp.vec3  # how the ray changes over one pixel to the right
    up: wp.vec3


# --------------------------------------------------------------------------------------------------------------
# Colour


@wp.func
def light_at(
    stage: Stage, paint: Paint, world: World, facet: Facet, hit: Hit, place: wp.vec3, eye: wp.vec3, which: int
) -> wp.vec3:
    """The light on a geom; with PLAIN_LIGHTS the shadow lights are added where they shine."""
    total = light_facet(paint.lights, world, which, facet, eye)
    if which == PLAIN_LIGHTS:
        for i in range(world.lights):
            seen_from = paint.lights[world.index, i].view
            if seen_from != 0:
                half = paint.lights[world.index, i].shadow_half
                view = paint.views[world.index, seen_from]
                if not in_shadow(stage, world, view, seen_from, half, place, hit.geom):
                    total = total + light_facet(paint.lights, world, i, facet, eye)
    return total


@wp.func
def surface_colour(
    stage: Stage, paint: Paint, world: World, view: int, hit: Hit, beam: Beam, which: int, tint: float
) -> wp.vec3:
    """Light times texture where a ray from the camera, or its mirror image, meets a geom of `tint` its colour."""
    shape = stage.shapes[world.index, hit.geom]
    coat = paint.coats[world.index, hit.geom]
    start = stage.starts[world.index, view, hit.geom]
    eye = paint.views[world.index, view].origin
    place = eye + hit.distance * beam.ray
    local_ray = beam.ray * shape.rotation
    local = start + hit.distance * local_ray

    facet = Facet()
    patch = Patch()
    local_normal = wp.vec3()
    if shape.kind == MESH or shape.kind == FIELD:
        if shape.kind == MESH:
            facet.corners = mesh_triangle(shape, hit.part)
        else:
            facet.corners = field_triangle(stage, world, shape, hit.part)
        local_normal = wp.normalize(
            wp.cross(facet.corners[1] - facet.corners[0], facet.corners[2] - facet.corners[0])
        )
        for i in range(3):
            facet.normals[i] = local_normal
            if shape.kind == MESH:
                corner = coat.corner + 3 * hit.part + i
                facet.normals[i] = paint.mesh_normals[corner]
                facet.u[i] = paint.mesh_texture[corner][0]
                facet.v[i] = paint.mesh_texture[corner][1]
    else:
        local_normal = normal_at(shape, hit, local)
        patch = patch_at(shape, coat.grid, hit, local)
        facet = facet_of(patch)
    facet.weights = facet_weights(facet, start, beam.middle * shape.rotation)
    for i in range(3):
        facet.corners[i] = coat.position + shape.rotation * facet.corners[i]
        facet.normals[i] = shape.rotation * facet.normals[i]
    facet.colour = tint * wp.vec3(coat.rgba[0], coat.rgba[1], coat.rgba[2])
    facet.surface = coat.surface
    light = light_at(stage, paint, world, facet, hit, place, eye, which)
    if coat.texture == NOTHING:
        return light
    texture = paint.textures[coat.texture]
    # How the place moves over one pixel, within the surface's tangent plane.
    slope = hit.distance / wp.dot(local_normal, local_ray)
    right = beam.right * shape.rotation
    up = beam.up * shape.rotation
    place_right = hit.distance * right - slope * wp.dot(local_normal, right) * local_ray
    place_up = hit.distance * up - slope * wp.dot(local_normal, up) * local_ray
    if texture.is_cube == 1:
        toward = wp.cw_mul(coat.unit, local)
        place_right = wp.cw_mul(coat.unit, place_right)
        place_up = wp.cw_mul(coat.unit, place_up)
        return wp.cw_mul(light, sample_cube(paint.texels, texture, toward, place_right, place_up))
    at = wp.vec2(coat.scale[0] * local[0] - 0.5, coat.scale[1] * local[1] - 0.5)
    flat_right = wp.vec2(place_right[0], place_right[1])
    flat_up = wp.vec2(place_up[0], place_up[1])
    if shape.kind == PLANE:  # from its corner, if it has one (render_context.c, makePlane)
        at = wp.vec2(coat.scale[0] * (local[0] + shape.size[0]), coat.scale[1] * (local[1] - shape.size[1]))
    elif coat.wrapped == 1:
        if shape.kind != MESH:
            for i in range(3):
                flat = patch_texture(patch, facet.u[i], facet.v[i])
                facet.u[i] = flat[0]
                facet.v[i] = flat[1]
        weights_right = facet_step(facet, shape.rotation * place_right)
        weights_up = facet_step(facet, shape.rotation * place_up)
        at = wp.vec2(wp.dot(facet.u, facet.weights), wp.dot(facet.v, facet.weights))
        at = wp.cw_mul(coat.scale, at)
        flat_right = wp.vec2(wp.dot(facet.u, weights_right), wp.dot(facet.v, weights_right))
        flat_up = wp.vec2(wp.dot(facet.u, weights_up), wp.dot(facet.v, weights_up))
    return wp.cw_mul(light, sample_flat(paint.texels, texture, at, coat.scale, flat_right, flat_up))


@wp.func
def mirrored(vector: wp.vec3, normal: wp.vec3) -> wp.vec3:
    """The mirror image of a direction."""
    return vector - 2.0 * wp.dot(vector, normal) * normal


@wp.func
def upward(rotation: wp.mat33) -> wp.vec3:
    """A geom's z axis."""
    return wp.vec3(rotation[0, 2], rotation[1, 2], rotation[2, 2])


@wp.func
def mirrored_beam(beam: Beam, normal: wp.vec3) -> Beam:
    """The mirror image of a beam."""
    image = Beam()
    image.ray = mirrored(beam.ray, normal)
    image.middle = mirrored(beam.middle, normal)
    image.right = mirrored(beam.right, normal)
    image.up = mirrored(beam.up, normal)
    return image


@wp.func
def mirror_image(stage: Stage, world: World, hit: Hit, at: wp.vec2, ray: wp.vec3) -> Hit:
    """What a camera ray that meets `hit` sees mirrored there: only the upper side of a plane or box mirrors."""
    image = Hit()
    image.geom = NOTHING
    if hit.geom == world.reflector:
        shape = stage.shapes[world.index, hit.geom]
        if shape.kind == PLANE or hit.part == 2:
            bounce = mirrored(ray, upward(shape.rotation))
            image = trace(stage, world, MIRROR, at, bounce, hit.distance, hit.geom)
    return image


@wp.func
def opacity(stage: Stage, paint: Paint, world: World, geom: int) -> float:
    """How much a geom hides of what is behind it; a plane seen from behind is faint (render_gl3.c)."""
    alpha = paint.coats[world.index, geom].rgba[3]
    if stage.shapes[world.index, geom].kind == PLANE and stage.starts[world.index, CAMERA, geom][2] < 0.0:
        alpha = 0.3 * alpha
    return alpha


@wp.func
def beam_colour(
    stage: Stage, paint: Paint, world: World, first: Hit, first_image: Hit, beam: Beam
) -> wp.vec3:
    """The colour along a camera's beam that meets `first`, and `first_image` in the mirror if that is one."""
    hit = first
    image = first_image
    total = wp.vec3(0.0, 0.0, 0.0)
    clear = float(1.0)
    colour = wp.vec3(0.0, 0.0, 0.0)
    while hit.geom != NOTHING and clear > 0.0:
        alpha = opacity(stage, paint, world, hit.geom)
        which = int(PLAIN_LIGHTS)
        if alpha < OPAQUE:
            which = ALL_LIGHTS
        colour = surface_colour(stage, paint, world, CAMERA, hit, beam, which, 1.0)
        if image.geom != NOTHING:
            bounce = mirrored_beam(beam, upward(stage.shapes[world.index, hit.geom].rotation))
            tint = paint.coats[world.index, hit.geom].reflectance
            colour = colour + surface_colour(stage, paint, world, MIRROR, image, bounce, ALL_LIGHTS, tint)
        rest = float(0.0)
        if alpha < OPAQUE:
            rest = (1.0 - alpha) * (1.0 - alpha)  # blended twice: front to back, then back to front
        total = total + clear * (1.0 - rest) * clamp_colour(colour)
        clear = clear * rest
        if clear > 0.0:
            hit = trace(stage, world, CAMERA, beam.at, beam.ray, hit.distance, hit.geom)
    if clear > 0.0 and paint.skybox >= 0:
        sky = sample_cube(
            paint.texels,
            paint.textures[paint.skybox],
            wp.vec3(beam.ray[0], beam.ray[2], -beam.ray[1]),
            wp.vec3(beam.right[0], beam.right[2], -beam.right[1]),
            wp.vec3(beam.up[0], beam.up[2], -beam.up[1]),
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
    first: int,
    shadow_clip: float,
    shadow_scale: float,
    height: int,
    width: int,
    worlds: wp.array(dtype=World),
    views: wp.array2d(dtype=View),
    lights: wp.array2d(dtype=Light),
):
    """Unpack camera and lights, find the geom that mirrors, and set up the views.

    `first` is where the geoms begin in a row; of a shadow map, `shadow_clip` is a directional light's half width,
    and `shadow_scale` the part of a spot light's cone.
    """
    world = wp.tid()
    state = World()
    state.index = world
    state.count = int(rows[world, 0])
    state.lights = int(rows[world, 1])
    state.views = 2
    eye_at = wp.static(CAMERA_START)
    eye = vector_at(rows, world, eye_at)
    forward = wp.normalize(vector_at(rows, world, eye_at + 3))
    up = wp.normalize(vector_at(rows, world, eye_at + 6))
    camera = View()
    camera.origin = eye
    camera.axes = wp.matrix_from_rows(wp.cross(forward, up), up, forward)
    views[world, CAMERA] = camera
    tall = 2.0 * rows[world, eye_at + 10] / float(height)
    state.pixel = wp.vec2(tall, tall)
    if rows[world, eye_at + 9] > 0.0:
        state.pixel = wp.vec2(2.0 * rows[world, eye_at + 9] / float(width), tall)
    state.centre = wp.vec2(rows[world, eye_at + 11], rows[world, eye_at + 12])

    for i in range(state.lights):
        at = wp.static(LIGHT_START) + i * wp.static(LIGHT_SIZE)
        light = Light()
        light.position = vector_at(rows, world, at)
        light.direction = vector_at(rows, world, at + 3)
        light.attenuation = vector_at(rows, world, at + 6)
        cutoff = DEGREE * rows[world, at + 9]
        light.cutoff = wp.cos(cutoff)
        light.exponent = rows[world, at + 10]
        light.ambient = vector_at(rows, world, at + 11)
        light.diffuse = vector_at(rows, world, at + 14)
        light.specular = vector_at(rows, world, at + 17)
        light.directional = int(rows[world, at + 20])
        if rows[world, at + 21] != 0.0:
            light.view = state.views
            state.views = state.views + 1
            half = wp.min(shadow_scale * cutoff, 80.0 * DEGREE)
            light.shadow_half = wp.sin(half) / wp.cos(half)
            if light.directional == 1:
                light.shadow_half = shadow_clip
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
    for geom in range(state.count):
        at = first + geom * wp.static(GEOM_SIZE)
        kind = int(rows[world, at])
        opaque = rows[world, at + 22] >= OPAQUE
        if found == 0 and (kind == PLANE or kind == BOX) and opaque and rows[world, at + 26] > 0.0:
            found = 1  # only the first geom that could mirror ever does
            normal = wp.vec3(rows[world, at + 12], rows[world, at + 15], rows[world, at + 18])
            position = vector_at(rows, world, at + 7)
            if kind == BOX:
                position = position + rows[world, at + 6] * normal
            above = wp.dot(eye - position, normal)
            if above > 0.0:
                state.reflector = geom
                mirror.origin = eye - 2.0 * above * normal
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
    solids: wp.array(dtype=Solid),
    first: int,
    stage: Stage,
    coats: wp.array2d(dtype=Coat),
):
    """Unpack one geom, and bound it in each view.

    `grid` holds each plane's half width, width of the first cell and of the others, along x and y; `first` is
    where the geoms begin in a row.
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
    emission = rows[world, at + 23]
    if worlds[world].lights == 0:
        emission = emission + GLOW
    exponent = wp.max(128.0 * rows[world, at + 25], 1.0e-3)
    coat.surface = wp.vec4(emission, rows[world, at + 24], exponent, wp.pow(1.0e-3, 1.0 / exponent))
    coat.reflectance = rows[world, at + 26]
    coat.texture = material.texture
    coat.unit = wp.vec3(1.0, 1.0, 1.0)
    if material.uniform == 0:
        for axis in range(3):
            coat.unit[axis] = 1.0 / wp.max(shape.size[axis], 1.0e-6)
    if shape.kind != PLANE and shape.kind != FIELD and shape.kind != MESH:
        coat.wrapped = material.flat

    centre = wp.vec3(0.0, 0.0, 0.0)
    half = shape.size
    if shape.kind == CAPSULE:
        half = half + wp.vec3(0.0, 0.0, shape.size[0])
    elif shape.kind == PLANE:
        x = grid[data, 0]
        y = grid[data, 1]
        shape.half = wp.vec2(x[0], y[0])
        coat.grid.first = wp.vec2(x[1], y[1])
        coat.grid.cell = wp.vec2(x[2], y[2])
        half = wp.vec3(x[0], y[0], 0.0)
    elif shape.kind == MESH:
        solid = solids[data / 2]  # MuJoCo numbers each mesh twice: itself and its convex hull
        shape.data = solid.data
        coat.corner = solid.corner
        coat.wrapped = solid.wrapped * material.flat
        centre = solid.middle
        half = solid.half
    elif shape.kind == FIELD:
        shape.data = wp.uint64(data)
        centre = wp.vec3(0.0, 0.0, 0.5 * shape.size[2])
        half = wp.vec3(shape.size[0], shape.size[1], 0.5 * shape.size[2])
    coat.scale = wp.vec2(0.5 * material.repeat[0] * coat.unit[0], -0.5 * material.repeat[1] * coat.unit[1])
    if coat.wrapped == 1:
        coat.scale = material.repeat
        if material.uniform == 1:
            coat.scale = wp.vec2(rows[world, at + 4] * coat.scale[0], rows[world, at + 5] * coat.scale[1])
    stage.shapes[world, geom] = shape
    coats[world, geom] = coat

    for i in range(worlds[world].views):
        view = views[world, i]
        stage.starts[world, i, geom] = (view.origin - coat.position) * shape.rotation
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
        stage.bounds[world, i, geom] = wp.vec4(low[0], low[1], high[0], high[1])


@wp.func
def camera_point(world: World, x: float, y: float, height: int, width: int) -> wp.vec2:
    """Where a point of the image, in pixels from its upper left, lies in the camera's view."""
    from_middle = wp.vec2(x - 0.5 * float(width), 0.5 * float(height) - y)
    return world.centre + wp.cw_mul(from_middle, world.pixel)


@wp.func
def camera_ray(at: wp.vec2, axes: wp.mat33) -> wp.vec3:
    """The unit ray through a point of the camera's view."""
    return wp.normalize(wp.vec3(at[0], at[1], 1.0) * axes)


@wp.func
def part_code(stage: Stage, world: World, hit: Hit) -> int:
    """The code of a geom and the side of it that is hit."""
    if hit.geom == NOTHING:
        return 0
    kind = stage.shapes[world.index, hit.geom].kind
    if kind == MESH or kind == FIELD:
        return SIDES * (hit.geom + 1)
    return SIDES * (hit.geom + 1) + hit.part


@wp.func
def code_at(stage: Stage, world: World, at: wp.vec2, ray: wp.vec3) -> int:
    """The code of what is seen along a camera ray."""
    hit = trace(stage, world, CAMERA, at, ray, 0.0, NOTHING)
    image = mirror_image(stage, world, hit, at, ray)
    if image.geom != NOTHING:
        return MIRROR_CODE + part_code(stage, world, image)
    return part_code(stage, world, hit)


@wp.func
def geom_of(world: World, code: int) -> int:
    """The geom of a code, or NOTHING."""
    if code >= MIRROR_CODE:
        return world.reflector
    return code / SIDES - 1


@wp.func
def image_of(code: int) -> int:
    """The geom whose mirror image a code stands for, or NOTHING."""
    if code >= MIRROR_CODE:
        return (code - MIRROR_CODE) / SIDES - 1
    return NOTHING


@wp.func
def meet(stage: Stage, world: World, view: int, geom: int, ray: wp.vec3) -> Hit:
    """Where a ray from a view's point meets a geom, or NOTHING."""
    hit = Hit()
    hit.distance = FAR
    if geom != NOTHING:
        shape = stage.shapes[world.index, geom]
        hit = ray_geom(stage, world, shape, stage.starts[world.index, view, geom], ray * shape.rotation)
    hit.geom = geom
    return hit


@wp.kernel
def find(
    worlds: wp.array(dtype=World),
    views: wp.array2d(dtype=View),
    stage: Stage,
    height: int,
    width: int,
    codes: wp.array3d(dtype=wp.int32),
):
    """What is seen at each pixel corner."""
    index, row, column = wp.tid()
    world = worlds[index]
    at = camera_point(world, float(column), float(row), height, width)
    ray = camera_ray(at, views[index, CAMERA].axes)
    codes[index, row, column] = code_at(stage, world, at, ray)


@wp.func
def sample_offset(sample: int) -> wp.vec2:
    """Where in a pixel, from its middle, the rasteriser takes its four samples."""
    return wp.vec2(float(sample) * 0.25 - 0.375, wp.vec4(-0.125, 0.375, -0.375, 0.125)[sample])


@wp.func
def sample_weight(stage: Stage, world: World, seen: wp.vec4i, samples: int, sample: int) -> float:
    """The part of a pixel's colour that a sample gives; 0 where one before it stands for it.

    A plane, and what is behind everything, look the same from all samples.
    """
    code = seen[sample]
    geom = geom_of(world, code)
    weight = 1.0 / float(samples)
    if geom == NOTHING or stage.shapes[world.index, geom].kind == PLANE:
        for other in range(samples):
            if seen[other] == code:
                if other < sample:
                    return 0.0
                if other > sample:
                    weight = weight + 0.25
    return weight


@wp.kernel
def shade(
    worlds: wp.array(dtype=World),
    stage: Stage,
    paint: Paint,
    codes: wp.array3d(dtype=wp.int32),
    depth: float,
    images: wp.array4d(dtype=wp.uint8),
):
    """Colour one pixel; where there is a fourth channel, it shows distances along the view up to `depth`."""
    index, row, column = wp.tid()
    height = images.shape[2]
    width = images.shape[3]
    world = worlds[index]
    axes = paint.views[index, CAMERA].axes
    right = wp.vec3(axes[0, 0], axes[0, 1], axes[0, 2])
    up = wp.vec3(axes[1, 0], axes[1, 1], axes[1, 2])
    forward = wp.vec3(axes[2, 0], axes[2, 1], axes[2, 2])
    x = float(column) + 0.5
    y = float(row) + 0.5
    middle = camera_point(world, x, y, height, width)
    middle_ray = camera_ray(middle, axes)
    mirror_normal = wp.vec3(0.0, 0.0, 1.0)
    if world.reflector >= 0:
        mirror_normal = upward(stage.shapes[index, world.reflector].rotation)

    # The parts seen at the four samples; one stands for all where the corners agree. How many there are is a
    # variable because Warp unrolls loops of a constant length, which these are too large for.
    code = codes[index, row, column]
    seen = wp.vec4i(code, code, code, code)
    samples = int(1)
    if (
        code != codes[index, row, column + 1]
        or code != codes[index, row + 1, column]
        or code != codes[index, row + 1, column + 1]
    ):
        samples = 4
        for sample in range(samples):
            offset = sample_offset(sample)
            at = camera_point(world, x + offset[0], y + offset[1], height, width)
            seen[sample] = code_at(stage, world, at, camera_ray(at, axes))

    total = wp.vec3(0.0, 0.0, 0.0)
    for sample in range(samples):
        code = seen[sample]
        weight = sample_weight(stage, world, seen, samples, sample)
        if weight > 0.0:
            beam = Beam()
            beam.at = middle
            beam.ray = middle_ray
            if samples == 4:
                offset = sample_offset(sample)
                beam.at = camera_point(world, x + offset[0], y + offset[1], height, width)
                beam.ray = camera_ray(beam.at, axes)
            scale = world.pixel / wp.sqrt(1.0 + wp.dot(beam.at, beam.at))
            beam.middle = middle_ray
            beam.right = scale[0] * (right - wp.dot(right, beam.ray) * beam.ray)
            beam.up = scale[1] * (up - wp.dot(up, beam.ray) * beam.ray)
            hit = meet(stage, world, CAMERA, geom_of(world, code), beam.ray)
            image = meet(stage, world, MIRROR, image_of(code), mirrored(beam.ray, mirror_normal))
            total = total + weight * beam_colour(stage, paint, world, hit, image, beam)
    for channel in range(3):
        images[index, channel, row, column] = wp.uint8(wp.clamp(total[channel], 0.0, 1.0) * 255.0 + 0.5)
    if images.shape[1] == 4:
        offset = sample_offset(1)  # llvmpipe's first; it keeps the distance of one sample
        at = camera_point(world, x + offset[0], y + offset[1], height, width)
        ray = camera_ray(at, axes)
        hit = meet(stage, world, CAMERA, geom_of(world, seen[1]), ray)
        while hit.geom != NOTHING and opacity(stage, paint, world, hit.geom) < OPAQUE:
            hit = trace(stage, world, CAMERA, at, ray, hit.distance, hit.geom)
        away = hit.distance * wp.dot(ray, forward) / depth
        images[index, 3, row, column] = wp.uint8(wp.clamp(away, 0.0, 1.0) * 255.0 + 0.5)
