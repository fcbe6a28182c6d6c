//! Payment provider events.
