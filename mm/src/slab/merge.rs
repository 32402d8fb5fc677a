//! Which caches can be one.
