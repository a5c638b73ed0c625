//! Guest RAM seen from the host: checked translation, shared access, cursors over scattered pieces.
