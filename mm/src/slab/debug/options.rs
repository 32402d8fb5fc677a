//! `slub_debug=`: which caches are debug caches, as the command line says.
