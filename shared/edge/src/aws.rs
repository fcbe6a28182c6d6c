//! The configuration that all AWS clients share.

use std::time::Duration;

use aws_config::retry::RetryConfig;
use aws_config::timeout::TimeoutConfig;
use aws_config::{BehaviorVersion, ConfigLoader, SdkConfig};

/// Region, credentials and endpoints from the environment (`AWS_ENDPOINT_URL*` included), with
/// time-outs short enough to answer the caller within a request: 1 s to connect, 3 s for an attempt,
/// 10 s for all three attempts.
pub async fn aws_config() -> SdkConfig {
    aws_config_loader().load().await
}

/// What [`aws_config`] loads, before it is loaded: region and credentials may still be given.
pub fn aws_config_loader() -> ConfigLoader {
    let timeouts = TimeoutConfig::builder()
        .connect_timeout(Duration::from_secs(1))
        .operation_attempt_timeout(Duration::from_secs(3))
        .operation_timeout(Duration::from_secs(10))
        .build();
    aws_config::defaults(BehaviorVersion::v2026_01_12())
        .timeout_config(timeouts)
        .retry_config(RetryConfig::standard().with_max_attempts(3))
}
