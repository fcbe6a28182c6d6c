//! Accounts created, changed and deleted by Greta's core system.
