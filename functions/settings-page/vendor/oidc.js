export { OidcClient, WebStorageStateStore, ErrorResponse } from "oidc-client-ts";
