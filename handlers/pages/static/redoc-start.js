// Starts Redoc over this server's own document, in the fonts of the machine that reads it.
Redoc.init(
  "/openapi.json",
  {
    hideDownloadButton: false,
    pathInMiddlePanel: true,
    requiredPropsFirst: true,
    theme: {
      typography: {
        fontFamily: "system-ui, sans-serif",
        headings: { fontFamily: "system-ui, sans-serif" },
        code: { fontFamily: "ui-monospace, monospace" },
      },
    },
  },
  document.getElementById("api"),
);
