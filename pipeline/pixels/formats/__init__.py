"""The parts of an image file that decide its pixels and its rotation, one file per format. No Pillow.

Each `without_metadata` returns the file without everything else (text, colour profiles, comments, previews), or None
if it cannot tell the parts apart. EXIF data is kept where it is undamaged, because it may hold the rotation.

Metadata may be so damaged that its length is wrong. Then the next part is searched for by its name and checked.
"""
