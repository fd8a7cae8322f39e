//! Turns a world of API objects into model resources, statuses and diagnostics.
