// Starts Swagger UI over this server's own document. `validatorUrl: null` keeps the document from being sent
// to an outside validator; `persistAuthorization` keeps the key in this browser until "Logout" is pressed.
SwaggerUIBundle({
  url: "/openapi.json",
  dom_id: "#api",
  deepLinking: true,
  persistAuthorization: true,
  tryItOutEnabled: true,
  displayRequestDuration: true,
  displayOperationId: true,
  defaultModelsExpandDepth: 0,
  filter: true,
  validatorUrl: null,
});
