"""Rays against the geoms of a scene, in each geom's own frame. Only entries count: OpenGL draws no inner faces.

A *view* is a point with three axes from which rays start: the camera (0), the camera mirrored by the reflecting
plane (1), each light that casts shadows (2...). Every ray starts in a view, so it can meet a geom only within the
geom's rectangle in that view, and the view's point in the geom's frame is computed once.
"""

# Warp's types are calls, which mypy cannot read, and its subset of Python forbids what these rules propose.
# mypy: ignore-errors
# ruff: noqa: UP018, RUF046, SIM108

import warp as wp

PLANE, FIELD, SPHERE, CAPSULE, ELLIPSOID, CYLINDER, BOX, MESH = (wp.constant(kind) for kind in range(8))
CAMERA, MIRROR = wp.constant(0), wp.constant(1)  # views; the others are lights
NOTHING = wp.constant(-1)
FAR = wp.constant(1.0e8)


@wp.struct
class View:
    """Where rays start."""

    origin: wp.vec3
    axes: wp.mat33  # rows are right, up, forward
    parallel: wp.int32  # rays are parallel to forward, not through the origin


@wp.struct
class World:
    """One world as one camera sees it: what is not in an array of its own."""

    index: wp.int32  # its place in the arrays
    count: wp.int32  # geoms
    lights: wp.int32
    views: wp.int32
    reflector: wp.int32  # the geom that mirrors, or NOTHING
    pixel: wp.vec2  # width and height of a pixel in the camera's view
    centre: wp.vec2  # and the view's middle, to the right and upwards


@wp.struct
class Shape:
    """What a ray can meet."""

    kind: wp.int32
    size: wp.vec3
    rotation: wp.mat33
    half: wp.vec2  # of a plane's grid
    data: wp.uint64  # which mesh, or which height field


@wp.struct
class Field:
    """A height field: where in a row its heights are."""

    rows: wp.int32  # along y
    columns: wp.int32  # along x
    start: wp.int32


@wp.struct
class Stage:
    """The geoms of all worlds, as rays meet them."""

    shapes: wp.array2d(dtype=Shape)  # world, geom
    bounds: wp.array3d(
        dtype=wp.vec4
    )  # world, view, geom: the geom's rectangle there: least and greatest corner
    starts: wp.array3d(dtype=wp.vec3)  # likewise: the view's point in the geom's frame
    fields: wp.array(dtype=Field)
    payload: wp.array2d(dtype=wp.float32)  # world, its row as `Scene.pack` writes it; for the heights


@wp.struct
class Hit:
    """Where a ray meets a geom; `geom` is NOTHING where it meets none."""

    geom: wp.int32
    part: wp.int32  # side of a box, 1 for a cylinder's caps, triangle of a mesh or height field
    distance: wp.float32


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
def within_box(start: wp.vec3, ray: wp.vec3, low: wp.vec3, high: wp.vec3) -> wp.vec2:
    """Where a ray enters a box, or 0 if it starts within, and where it leaves it; in this order if it meets it."""
    entry = float(0.0)
    leave = float(FAR)
    for axis in range(3):
        if wp.abs(ray[axis]) > 1.0e-9:
            one = (low[axis] - start[axis]) / ray[axis]
            other = (high[axis] - start[axis]) / ray[axis]
            entry = wp.max(entry, wp.min(one, other))
            leave = wp.min(leave, wp.max(one, other))
        elif start[axis] < low[axis] or start[axis] > high[axis]:
            leave = -FAR
    return wp.vec2(entry, leave)


@wp.func
def height_at(stage: Stage, world: World, field: Field, row: int, column: int) -> float:
    """One height, in metres."""
    return stage.payload[world.index, field.start + row * field.columns + column]


@wp.func
def ray_field(stage: Stage, world: World, shape: Shape, start: wp.vec3, ray: wp.vec3) -> Hit:
    """Follow a ray from cell to cell until it falls onto one of a cell's two triangles.

    A cell is cut from its first to its last corner, as a triangle strip that begins with the higher row cuts it.
    """
    hit = Hit()
    hit.distance = FAR
    field = stage.fields[int(shape.data)]
    size = shape.size
    stretch = within_box(start, ray, wp.vec3(-size[0], -size[1], 0.0), size)
    # In units of cells, counted from the first corner.
    scale = wp.vec3(0.5 * float(field.columns - 1) / size[0], 0.5 * float(field.rows - 1) / size[1], 1.0)
    origin = wp.cw_mul(start + wp.vec3(size[0], size[1], 0.0), scale)
    way = wp.cw_mul(ray, scale)
    entered = float(stretch[0])
    column = wp.clamp(int(origin[0] + entered * way[0]), 0, field.columns - 2)
    row = wp.clamp(int(origin[1] + entered * way[1]), 0, field.rows - 2)
    while entered < stretch[1] and hit.distance == FAR:
        x = origin[0] - float(column)
        y = origin[1] - float(row)
        leave_x = float(FAR)
        leave_y = float(FAR)
        if wp.abs(way[0]) > 1.0e-9:
            leave_x = (wp.max(wp.sign(way[0]), 0.0) - x) / way[0]
        if wp.abs(way[1]) > 1.0e-9:
            leave_y = (wp.max(wp.sign(way[1]), 0.0) - y) / way[1]
        left = wp.min(leave_x, leave_y)
        first = height_at(stage, world, field, row, column)
        right = height_at(stage, world, field, row, column + 1)
        above = height_at(stage, world, field, row + 1, column)
        last = height_at(stage, world, field, row + 1, column + 1)
        if origin[2] + wp.min(entered * way[2], left * way[2]) <= wp.max(
            wp.max(first, right), wp.max(above, last)
        ):
            for half in range(2):
                slope = wp.vec2(last - above, above - first)  # along x and y
                if half == 1:
                    slope = wp.vec2(right - first, last - right)
                sinking = slope[0] * way[0] + slope[1] * way[1] - way[2]
                over = origin[2] - first - slope[0] * x - slope[1] * y
                if sinking > 0.0:
                    distance = over / sinking
                    u = x + distance * way[0]
                    v = y + distance * way[1]
                    inside = u > -1.0e-4 and v > -1.0e-4 and u < 1.0001 and v < 1.0001
                    if inside and distance > 0.0 and distance < hit.distance and ((u > v) == (half == 1)):
                        hit.distance = distance
                        hit.part = 2 * (row * field.columns + column) + half
        entered = left
        if leave_x < leave_y:
            column = column + int(wp.sign(way[0]))
        else:
            row = row + int(wp.sign(way[1]))
        if column < 0 or row < 0 or column > field.columns - 2 or row > field.rows - 2:
            entered = FAR
    return hit


@wp.func
def field_triangle(stage: Stage, world: World, shape: Shape, part: int) -> wp.mat33:
    """The corners of a triangle of a height field, as rows, in the geom's frame."""
    field = stage.fields[int(shape.data)]
    row = part / 2 / field.columns
    column = part / 2 % field.columns
    cell = wp.vec2(
        2.0 * shape.size[0] / float(field.columns - 1), 2.0 * shape.size[1] / float(field.rows - 1)
    )
    x = float(column) * cell[0] - shape.size[0]
    y = float(row) * cell[1] - shape.size[1]
    first = wp.vec3(x, y, height_at(stage, world, field, row, column))
    last = wp.vec3(x + cell[0], y + cell[1], height_at(stage, world, field, row + 1, column + 1))
    if part % 2 == 0:
        above = wp.vec3(x, y + cell[1], height_at(stage, world, field, row + 1, column))
        return wp.matrix_from_rows(first, last, above)
    right = wp.vec3(x + cell[0], y, height_at(stage, world, field, row, column + 1))
    return wp.matrix_from_rows(first, right, last)


@wp.func
def mesh_triangle(shape: Shape, part: int) -> wp.mat33:
    """The corners of a triangle of a mesh, as rows, in the geom's frame."""
    first = 3 * part
    return wp.matrix_from_rows(
        wp.mesh_get_point(shape.data, first),
        wp.mesh_get_point(shape.data, first + 1),
        wp.mesh_get_point(shape.data, first + 2),
    )


@wp.func
def ray_shape(shape: Shape, start: wp.vec3, ray: wp.vec3) -> Hit:
    """Meet one geom that is no height field; `distance` is FAR where the ray passes by, and may be negative."""
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
        query = wp.mesh_query_ray(shape.data, start, ray, FAR)
        if query.result:
            hit.distance = query.t
            hit.part = query.face
    return hit


@wp.func
def ray_geom(stage: Stage, world: World, shape: Shape, start: wp.vec3, ray: wp.vec3) -> Hit:
    """Meet one geom, a height field too, as `ray_shape`."""
    if shape.kind == FIELD:
        return ray_field(stage, world, shape, start, ray)
    return ray_shape(shape, start, ray)


@wp.func
def normal_at(shape: Shape, hit: Hit, place: wp.vec3) -> wp.vec3:
    """The unit normal at a place of a geom that is not made of triangles, in the geom's frame."""
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
    return wp.normalize(normal)


@wp.func
def within(bounds: wp.vec4, at: wp.vec2) -> bool:
    """Whether a place of a view lies in a rectangle of it."""
    return at[0] >= bounds[0] and at[1] >= bounds[1] and at[0] <= bounds[2] and at[1] <= bounds[3]


@wp.func
def trace(
    stage: Stage, world: World, view: int, at: wp.vec2, ray: wp.vec3, beyond: float, ignored: int
) -> Hit:
    """The first geom but `ignored` that a ray from a view's point meets beyond a distance.

    `at` is the ray in the view's own coordinates: right and up at distance 1 forward.
    """
    best = Hit()
    best.geom = NOTHING
    best.distance = FAR
    for geom in range(world.count):
        if geom != ignored and within(stage.bounds[world.index, view, geom], at):
            shape = stage.shapes[world.index, geom]
            hit = ray_geom(stage, world, shape, stage.starts[world.index, view, geom], ray * shape.rotation)
            if hit.distance > beyond and hit.distance < best.distance:
                best.geom = geom  # field by field: Warp would copy the whole for every geom
                best.part = hit.part
                best.distance = hit.distance
    return best


@wp.func
def in_shadow(
    stage: Stage, world: World, view: View, index: int, half: float, place: wp.vec3, lit: int
) -> bool:
    """Whether a geom but `lit` stands between a light and a place.

    Args:
        view: the light's, number `index`; `half` is half the width of its shadow map, beyond which it shines.
    """
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
    for geom in range(world.count):
        if geom != lit and within(stage.bounds[world.index, index, geom], at):
            shape = stage.shapes[world.index, geom]
            start = stage.starts[world.index, index, geom] + shift * shape.rotation
            hit = ray_geom(stage, world, shape, start, ray * shape.rotation)
            if hit.distance > 0.0 and hit.distance < 0.999 * distance:
                return True
    return False
