//! The interface as OpenAPI 3.1, assembled from the functions' parts.

use utoipa::openapi::security::{HttpAuthScheme, HttpBuilder, SecurityRequirement, SecurityScheme};
use utoipa::openapi::{ComponentsBuilder, InfoBuilder, OpenApi, OpenApiBuilder};

/// The document as it is committed (docs/openapi.json) and served (`/openapi.json`).
pub fn document() -> OpenApi {
    let token = HttpBuilder::new().scheme(HttpAuthScheme::Bearer).bearer_format("JWT").build();
    let info = InfoBuilder::new()
        .title("OpenRouter BYOK in Greta")
        .version("1")
        .description(Some("AI calls, the OpenRouter integration, its add-on, and credits."))
        .build();
    let mut document = OpenApiBuilder::new()
        .info(info)
        .components(Some(
            ComponentsBuilder::new().security_scheme("token", SecurityScheme::Http(token)).build(),
        ))
        .security(Some([SecurityRequirement::new::<_, [&str; 0], &str>("token", [])]))
        .build();
    document.merge(ai_proxy::openapi());
    document.merge(integration_settings::openapi());
    document.merge(key_save::openapi());
    document.merge(subscription_webhook::openapi());
    document
}
