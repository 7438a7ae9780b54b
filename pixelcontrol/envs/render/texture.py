"""Textures: flat ones and cubes, trilinear as GL_LINEAR_MIPMAP_LINEAR."""

# Warp's types are calls, which mypy cannot read, and its subset of Python forbids what these rules propose.
# mypy: ignore-errors
# ruff: noqa: UP018, RUF046

import warp as wp


@wp.struct
class Texture:
    """One texture with its mip levels, in the common array of texels."""

    is_cube: wp.int32
    width: wp.int32
    height: wp.int32
    levels: wp.int32
    start: wp.int32


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
    texels: wp.array(dtype=wp.uint32), texture: Texture, toward: wp.vec3, right: wp.vec3, up: wp.vec3
) -> wp.vec3:
    """Sample a cube map (OpenGL 1.5 specification, section 3.8.6).

    `right` and `up` are how the direction `toward` changes over one pixel to the right and upwards.
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
    m_right = sign * right[major]
    m_up = sign * up[major]
    s_right = wp.dot(s_axis, right) - s * m_right
    t_right = wp.dot(t_axis, right) - t * m_right
    s_up = wp.dot(s_axis, up) - s * m_up
    t_up = wp.dot(t_axis, up) - t * m_up
    widest = wp.max(s_right * s_right + t_right * t_right, s_up * s_up + t_up * t_up)
    footprint = 0.5 * float(texture.width) / m * wp.sqrt(widest)
    return trilinear(texels, texture, face, 0.5 * s + 0.5, 0.5 * t + 0.5, footprint)


@wp.func
def sample_flat(
    texels: wp.array(dtype=wp.uint32),
    texture: Texture,
    at: wp.vec2,
    scale: wp.vec2,
    right: wp.vec2,
    up: wp.vec2,
) -> wp.vec3:
    """Sample a flat texture, which repeats, at `at`.

    `right` and `up` are how the place changes over one pixel to the right and upwards; one unit of these is
    `scale` of the texture.
    """
    w = float(texture.width) * scale[0]
    h = float(texture.height) * scale[1]
    widest = wp.max(
        w * w * right[0] * right[0] + h * h * right[1] * right[1],
        w * w * up[0] * up[0] + h * h * up[1] * up[1],
    )
    return trilinear(texels, texture, 0, at[0], at[1], wp.sqrt(widest))
