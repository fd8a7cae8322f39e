//! Store, compile loop, publisher, status and the control plane's API.
