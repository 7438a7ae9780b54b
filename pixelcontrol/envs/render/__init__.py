"""From the physics of a task to images: dm_control's OpenGL, and MuJoCo Warp's ray tracer."""
