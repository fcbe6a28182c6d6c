//! The integration card, its switches, credits and ledger.
