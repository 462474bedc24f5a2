// A headless Node-RED on the loopback address. Everything that differs between estates comes from the environment.
const { createHash, timingSafeEqual } = require("node:crypto");

const digest = (text) => createHash("sha256").update(String(text)).digest();

module.exports = {
  uiHost: "127.0.0.1",
  uiPort: Number(process.env.ESTATE_NODE_RED_PORT),
  flowFile: "flows.json",
  credentialSecret: process.env.ESTATE_NODE_RED_CREDENTIAL_SECRET,
  // Nobody can log in to the editor (there are no users), but whether a node has credentials is told only with it.
  disableEditor: false,
  adminAuth: {
    type: "credentials",
    users: [],
    tokens: async (token) =>
      timingSafeEqual(digest(token), digest(process.env.ESTATE_NODE_RED_TOKEN))
        ? { username: "reinstate", permissions: "*" }
        : null,
  },
  diagnostics: { enabled: true, ui: false },
  runtimeState: { enabled: true, ui: false },
  telemetry: { enabled: false, updateNotification: false },
  externalModules: {
    autoInstall: false,
    palette: { allowInstall: false, allowUpload: false },
    modules: { allowInstall: false },
  },
  // What a replayed event did is written to disk before and after it runs, so that it is known after a restart too.
  contextStorage: {
    default: { module: "memory" },
    reinstate: { module: "localfilesystem", config: { cache: false } },
  },
  logging: { console: { level: "info", metrics: false, audit: false } },
};
