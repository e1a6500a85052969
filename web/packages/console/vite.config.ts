import { defineConfig } from "vite";

export default defineConfig({
  base: "/",
  build: {
    // Beside the page: both listeners serve /assets from one folder. Run after the page's build.
    outDir: "../../dist",
    emptyOutDir: false,
    target: "es2022",
    assetsInlineLimit: 0,
    modulePreload: { polyfill: false },
    rolldownOptions: { input: "console/index.html" },
  },
});
