//! Installations as their users see them.
