//! The setup of a function, and the configuration that all AWS clients share.

use std::time::Duration;

use aws_config::stalled_stream_protection::StalledStreamProtectionConfig;
use aws_config::timeout::TimeoutConfig;
use aws_config::{BehaviorVersion, ConfigLoader, SdkConfig};
use aws_smithy_http_client::Builder;
use aws_smithy_http_client::tls::rustls_provider::CryptoMode;
use aws_smithy_http_client::tls::{Provider, TlsContext, TrustStore};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use webpki_root_certs::TLS_SERVER_ROOT_CERTS;

use crate::clock::Clock;
use crate::settings::Env;

const CONNECT_TIME: Duration = Duration::from_secs(1);
/// Time-out of a whole attempt, from connecting to the end of the response's body.
const ATTEMPT_TIME: Duration = Duration::from_secs(3);

pub struct Setup {
    pub env: Env,
    pub clock: Clock,
    pub aws: SdkConfig,
}

impl Setup {
    /// For a function that runs on Lambda.
    pub async fn new(env: Env) -> Self {
        Self { env, clock: Clock::system(), aws: aws_config().load().await }
    }
}

/// The SDK takes region, credentials, endpoints, FIPS, dual stack and retries from the environment.
/// On Lambda all of them are set, so the SDK makes no requests for them. The time-outs leave room
/// for the SDK's usual three attempts within a caller's request.
pub fn aws_config() -> ConfigLoader {
    let tls = TlsContext::builder().with_trust_store(mozilla_roots());
    let http = Builder::new()
        .tls_provider(Provider::rustls(CryptoMode::AwsLc))
        .tls_context(tls.build().unwrap_or_default());
    let time_outs = TimeoutConfig::builder()
        .connect_timeout(CONNECT_TIME)
        .operation_attempt_timeout(ATTEMPT_TIME);
    aws_config::defaults(BehaviorVersion::v2026_01_12())
        .http_client(http.build_https())
        .timeout_config(time_outs.build())
        .stalled_stream_protection(StalledStreamProtectionConfig::disabled())
}

/// Mozilla's certificate authorities as of the build, in the form that the SDK takes.
fn mozilla_roots() -> TrustStore {
    let mut pem = String::new();
    for root in TLS_SERVER_ROOT_CERTS {
        pem.push_str("-----BEGIN CERTIFICATE-----\n");
        STANDARD.encode_string(root, &mut pem);
        pem.push_str("\n-----END CERTIFICATE-----\n");
    }
    TrustStore::empty().with_pem_certificate(pem)
}
