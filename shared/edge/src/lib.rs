//! The HTTP and Lambda edge: settings, identity, errors, logs.
