//! Connect, test and disconnect the OpenRouter key.
