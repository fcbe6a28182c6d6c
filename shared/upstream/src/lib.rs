//! The client for OpenRouter and the default AI.
