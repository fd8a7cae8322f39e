//! The protobuf form of model resources, both directions.
