//! OpenRouter keys in Secrets Manager, and the cache in front of them.
