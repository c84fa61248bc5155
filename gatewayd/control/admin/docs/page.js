// In a file of its own: the page's policy allows no script within it.
SwaggerUIBundle({
  url: "openapi.json",
  dom_id: "#page",
  deepLinking: true,
  docExpansion: "none",
  filter: true,
  displayRequestDuration: true,
  persistAuthorization: false, // a token stays in this tab, and goes with it
  validatorUrl: null, // nothing is fetched from elsewhere
});
