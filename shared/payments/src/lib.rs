//! The payment provider: signatures, events to facts, API calls. Empty until payments are part of
//! the system.
