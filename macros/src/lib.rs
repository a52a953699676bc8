//! The attribute and derive macros of Interline.
