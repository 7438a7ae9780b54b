"""From the physics of a task to images: dm_control's OpenGL, and a ray tracer that follows its rules."""
