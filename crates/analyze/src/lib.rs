//! Rules that look at a world and its compilation and report problems; runs behaviour cases.
