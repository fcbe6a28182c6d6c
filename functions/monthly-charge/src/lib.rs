//! The billing tick and the charge worker.
