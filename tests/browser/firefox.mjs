// Opens a report in Firefox (WebDriver BiDi, by puppeteer-core) and does what its reader would first.
// node firefox.mjs PUPPETEER_FOLDER FIREFOX REPORT PICTURE → what was seen, as JSON.
import { createRequire } from "node:module";
import { pathToFileURL } from "node:url";

const [folder, firefox, report, picture] = process.argv.slice(2);
const puppeteer = createRequire(`${folder}/`)("puppeteer-core");

const browser = await puppeteer.launch({ browser: "firefox", executablePath: firefox, headless: true });
try {
  const problems = [];
  const page = await browser.newPage();
  page.on("console", (message) => problems.push(`${message.type()}: ${message.text()}`));
  page.on("pageerror", (error) => problems.push(`error: ${error.message}`));
  page.on("request", (request) => {
    const url = request.url();
    if (!/^(file|data|blob|about):/.test(url)) problems.push(`request: ${url}`);
  });
  await page.setViewport({ width: 1280, height: 900 });
  await page.goto(pathToFileURL(report).href);
  await page.waitForSelector("html[data-perfkit=ready]", { timeout: 90_000 });
  const seen = { problems, failed: await page.$$eval(".card.is-error", (all) => all.length) };

  const stage = "#flame_requests .flame-stage";
  const bars = () => page.$$eval(`${stage} .bars .point`, (all) => all.length);
  const said = (selector) => page.$eval(selector, (one) => one.textContent);
  await page.$eval(stage, (one) => one.scrollIntoView({ block: "center", behavior: "instant" }));
  seen.bars = await bars();
  seen.wide = await page.evaluate(() => document.documentElement.scrollWidth - innerWidth);

  // A click on the second row zooms into the frame there, and the first breadcrumb leads back.
  const box = await (await page.$(stage)).boundingBox();
  const path = "#flame_requests .flame-path";
  seen.whole = await said(path);
  await page.mouse.click(box.x + 40, box.y + 1.5 * 18);
  const changed = (where, before) => page.waitForFunction((one, old) => document.querySelector(one).textContent !== old, { timeout: 10_000 }, where, before);
  await changed(path, seen.whole);
  seen.zoomed = await said(path);

  seen.all = await said(".filter-count");
  await page.select(".filter-bar select", await page.$eval(".filter-bar select", (one) => one.options[1].value));
  await changed(".filter-count", seen.all);
  seen.filtered = await said(".filter-count");
  seen.fragment = await page.evaluate(() => location.hash);

  const theme = () => page.evaluate(() => document.documentElement.dataset.theme);
  seen.themes = [await theme()];
  await page.click("[data-action=theme]");
  seen.themes.push(await theme());
  await page.screenshot({ path: picture });
  process.stdout.write(JSON.stringify(seen));
} finally {
  await browser.close();
}
