//! A separate browser for each test: a driver, a window, and the network traffic.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::sync::Mutex;
use std::time::{Duration, Instant};

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Value, json};

/// Longer than any condition takes that comes true. Less than the 20 s after which pages poll, so
/// that polling cannot make it true.
const PATIENCE: Duration = Duration::from_secs(15);

/// Also searches shadow roots; skips hidden elements.
const FIND: &str = "
    const find = (root) => {
        for (const element of root.querySelectorAll('*')) {
            if (element.matches(arguments[0]) && element.checkVisibility({visibilityProperty: true})) return element;
            const inside = element.shadowRoot && find(element.shadowRoot);
            if (inside) return inside;
        }
        return null;
    };
    return find(document);
";

/// The focused element, also in shadow roots.
const FOCUSED: &str = "
    let element = document.activeElement;
    while (element?.shadowRoot?.activeElement) element = element.shadowRoot.activeElement;
";

/// The name of an element reference in the driver's JSON.
const ELEMENT: &str = "element-6066-11e4-a52e-4f735466cecf";

/// Keys that are not characters.
pub(crate) mod key {
    pub(crate) const ENTER: &str = "\u{E007}";
    pub(crate) const ESCAPE: &str = "\u{E00C}";
    pub(crate) const TAB: &str = "\u{E004}";
}

pub(crate) struct Browser {
    http: reqwest::Client,
    /// The session's URL.
    session: String,
    process: Child,
    /// All network events read so far.
    events: Mutex<Vec<Value>>,
}

/// An error from the driver.
#[derive(Debug)]
struct Refused(String);

impl Browser {
    /// A browser with an empty profile.
    pub(crate) async fn start() -> Self {
        // The driver picks a port that is free in one address family and fails if the other one's
        // is taken.
        let (process, port) = (0..5).find_map(|_| driver()).expect("chromedriver starts");
        let mut browser = Self {
            http: reqwest::Client::builder().no_proxy().build().unwrap(),
            session: format!("http://127.0.0.1:{port}/session"),
            process,
            events: Mutex::default(),
        };
        let arguments = [
            "--headless=new",
            "--no-sandbox",
            "--disable-gpu",
            "--disable-dev-shm-usage",
            "--window-size=1280,1000",
            "--lang=en",
        ];
        let wanted = json!({"capabilities": {"alwaysMatch": {
            "browserName": "chrome",
            "goog:chromeOptions": {"args": arguments},
            "goog:loggingPrefs": {"browser": "ALL", "performance": "ALL"},
        }}});
        let session = browser.post("", wanted).await.unwrap();
        let id = session["sessionId"].as_str().expect("a session");
        browser.session = format!("{}/{id}", browser.session);
        browser
    }

    async fn post(&self, path: &str, body: Value) -> Result<Value, Refused> {
        let request = self.http.post(format!("{}{path}", self.session));
        answer(request.body(body.to_string())).await
    }

    async fn get(&self, path: &str) -> Value {
        let request = self.http.get(format!("{}{path}", self.session));
        answer(request).await.unwrap()
    }

    pub(crate) async fn open(&self, url: &str) {
        self.post("/url", json!({"url": url})).await.unwrap();
    }

    pub(crate) async fn url(&self) -> String {
        self.get("/url").await.as_str().unwrap().to_owned()
    }

    /// The script's result; promises are awaited.
    pub(crate) async fn run(&self, script: &str, arguments: Vec<Value>) -> Value {
        let ran = self.try_to_run(script, arguments).await;
        ran.unwrap()
    }

    async fn try_to_run(&self, script: &str, arguments: Vec<Value>) -> Result<Value, Refused> {
        let body = json!({"script": script, "args": arguments});
        self.post("/execute/sync", body).await
    }

    /// The first visible element, without waiting.
    async fn find_now(&self, selector: &str) -> Option<Element<'_>> {
        // A page that is being left has none.
        let found = self.try_to_run(FIND, vec![json!(selector)]).await.ok()?;
        let id = found[ELEMENT].as_str()?.to_owned();
        Some(Element { browser: self, id })
    }

    pub(crate) async fn has(&self, selector: &str) -> bool {
        self.find_now(selector).await.is_some()
    }

    /// Waits until `check` returns a value.
    pub(crate) async fn until<T>(
        &self,
        what: &str,
        mut check: impl AsyncFnMut() -> Option<T>,
    ) -> T {
        let end = Instant::now() + PATIENCE;
        loop {
            if let Some(found) = check().await {
                return found;
            }
            if Instant::now() > end {
                let page = self.run("return document.body.innerText", vec![]).await;
                let shown = self.shown().await;
                panic!("timed out waiting for {what} at {}:\n{page}\n{shown}", self.url().await);
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }

    /// The elements' text, for failure messages.
    async fn shown(&self) -> String {
        let script = "return [...document.querySelectorAll('*')].filter((e) => e.shadowRoot).map((e) => e.shadowRoot.textContent.replace(/\\s+/g, ' ')).join('\\n')";
        self.run(script, vec![]).await.to_string()
    }

    /// Waits for a visible element.
    pub(crate) async fn find(&self, selector: &str) -> Element<'_> {
        self.until(selector, async || self.find_now(selector).await).await
    }

    /// Waits until it is gone.
    pub(crate) async fn gone(&self, selector: &str) {
        let what = format!("{selector} to disappear");
        self.until(&what, async || self.find_now(selector).await.is_none().then_some(())).await;
    }

    /// Waits until the element's text contains `part`.
    pub(crate) async fn says(&self, selector: &str, part: &str) {
        let what = format!("“{part}” in {selector}");
        self.until(&what, async || {
            let text = self.find_now(selector).await?.text().await?;
            text.contains(part).then_some(())
        })
        .await;
    }

    /// Waits until an expression is true.
    pub(crate) async fn wait_for(&self, expression: &str) {
        let script = format!("return Boolean({expression})");
        self.until(expression, async || {
            (self.run(&script, vec![]).await == json!(true)).then_some(())
        })
        .await;
    }

    /// Clicks the element as soon as possible.
    pub(crate) async fn press(&self, selector: &str) {
        let what = format!("a click on {selector}");
        self.until(&what, async || {
            let element = self.find_now(selector).await?;
            // Not while another action is in progress.
            if element.attribute("aria-disabled").await.is_some() {
                return None;
            }
            element.click().await.ok()
        })
        .await;
    }

    /// Clicks an action's button.
    pub(crate) async fn act(&self, action: &str) {
        self.press(&format!("[data-action=\"{action}\"]")).await;
    }

    /// Waits until the element has the focus.
    pub(crate) async fn focus_is(&self, selector: &str) {
        let script =
            format!("(() => {{ {FOCUSED} return element?.matches({}) }})()", json!(selector));
        self.wait_for(&script).await;
    }

    /// Presses Tab until the action's button has the focus.
    pub(crate) async fn tab_to(&self, action: &str) {
        let found = format!("{FOCUSED} return element?.dataset?.action === arguments[0]");
        for _ in 0..60 {
            if self.run(&found, vec![json!(action)]).await == json!(true) {
                return;
            }
            self.keys(key::TAB).await;
        }
        panic!("the focus never reaches {action}");
    }

    pub(crate) async fn fill(&self, selector: &str, text: &str) {
        let field = self.find(selector).await;
        self.post(&format!("/element/{}/clear", field.id), json!({})).await.unwrap();
        field.type_in(text).await;
    }

    /// Types into the focused element.
    pub(crate) async fn keys(&self, keys: &str) {
        let active = self.get("/element/active").await;
        let id = active[ELEMENT].as_str().unwrap().to_owned();
        Element { browser: self, id }.type_in(keys).await;
    }

    /// A command of the Chrome `DevTools` Protocol.
    pub(crate) async fn cdp(&self, method: &str, parameters: Value) -> Value {
        let command = json!({"cmd": method, "params": parameters});
        let answer = self.post("/goog/cdp/execute", command).await;
        answer.unwrap_or(Value::Null)
    }

    /// The console errors since the last call. Chromium reports the API's refusals as errors; those
    /// with `expected` statuses are left out.
    pub(crate) async fn console_errors(&self, expected: &[u16]) -> Vec<String> {
        let entries = self.log("browser").await;
        let is_expected = |message: &str| {
            let refused =
                |status: &u16| message.contains(&format!("responded with a status of {status}"));
            expected.iter().any(refused)
        };
        let errors = entries.iter().filter(|entry| {
            let message = entry["message"].as_str().unwrap_or_default();
            matches!(entry["level"].as_str(), Some("SEVERE" | "WARNING")) && !is_expected(message)
        });
        errors.map(|entry| entry["message"].to_string()).collect()
    }

    /// A log's entries since the last call.
    async fn log(&self, name: &str) -> Vec<Value> {
        let entries = self.post("/se/log", json!({"type": name})).await.unwrap();
        entries.as_array().unwrap().clone()
    }

    /// The network traffic since the last call.
    pub(crate) async fn traffic(&self) -> Traffic {
        let entries = self.log("performance").await;
        let events = entries.iter().map(|entry| {
            let event: Value = serde_json::from_str(entry["message"].as_str().unwrap()).unwrap();
            event["message"].clone()
        });
        let events: Vec<Value> = events.collect();
        self.events.lock().unwrap().extend(events.clone());
        Traffic(events)
    }

    /// Runs this script at the start of each later page, before the page's own.
    pub(crate) async fn begin_with(&self, script: &str) {
        let script = json!({"source": script});
        self.cdp("Page.addScriptToEvaluateOnNewDocument", script).await;
    }

    /// All network traffic.
    pub(crate) async fn all_traffic(&self) -> Traffic {
        self.traffic().await;
        Traffic(self.events.lock().unwrap().clone())
    }

    /// Advances the page's clock.
    pub(crate) async fn pass(&self, milliseconds: u64) {
        let script = "const now = Date.now; Date.now = () => now() + arguments[0]";
        self.run(script, vec![json!(milliseconds)]).await;
    }

    /// Makes the page refresh, as when it regains the focus.
    pub(crate) async fn refocus(&self) {
        self.run("window.dispatchEvent(new Event('focus'))", vec![]).await;
    }

    /// The body of a response, unless the browser has discarded it.
    pub(crate) async fn body_of(&self, request: &str) -> Option<String> {
        let body = self.cdp("Network.getResponseBody", json!({"requestId": request})).await;
        body["body"].as_str().map(str::to_owned)
    }

    /// Opens another tab in front; returns the previous tab and the new one.
    pub(crate) async fn new_tab(&self, url: &str) -> (Value, Value) {
        let before = self.get("/window").await;
        let new = self.post("/window/new", json!({"type": "tab"})).await.unwrap();
        let new = new["handle"].clone();
        self.switch_to(&new).await;
        self.open(url).await;
        (before, new)
    }

    pub(crate) async fn switch_to(&self, tab: &Value) {
        self.post("/window", json!({"handle": tab})).await.unwrap();
    }

    pub(crate) async fn set_width(&self, width: u32) {
        let metrics =
            json!({"width": width, "height": 1000, "deviceScaleFactor": 1, "mobile": width < 600});
        self.cdp("Emulation.setDeviceMetricsOverride", metrics).await;
    }

    pub(crate) async fn set_scheme(&self, scheme: &str) {
        let features = json!([{"name": "prefers-color-scheme", "value": scheme}]);
        self.cdp("Emulation.setEmulatedMedia", json!({"features": features})).await;
    }

    pub(crate) async fn set_offline(&self, offline: bool) {
        let conditions = json!({"offline": offline, "latency": 0, "downloadThroughput": -1, "uploadThroughput": -1});
        self.cdp("Network.emulateNetworkConditions", conditions).await;
    }

    /// Saves a picture of the whole page.
    pub(crate) async fn picture(&self, file: PathBuf) {
        std::fs::create_dir_all(file.parent().unwrap()).unwrap();
        let size = "return document.documentElement.scrollHeight";
        let height = self.run(size, vec![]).await;
        let width = self.run("return innerWidth", vec![]).await;
        let clip = json!({"x": 0, "y": 0, "width": width, "height": height, "scale": 1});
        let options = json!({"format": "png", "captureBeyondViewport": true, "clip": clip});
        let picture = self.cdp("Page.captureScreenshot", options).await;
        let picture = picture["data"].as_str().expect("a picture");
        std::fs::write(file, STANDARD.decode(picture).unwrap()).unwrap();
    }
}

impl Browser {
    /// Synchronous, because `drop` cannot await.
    fn end_session(&self) -> std::io::Result<()> {
        let address = self.session.trim_start_matches("http://");
        let (host, path) = address.split_once('/').unwrap_or((address, ""));
        let mut driver = TcpStream::connect(host)?;
        let request =
            format!("DELETE /{path} HTTP/1.1\r\nhost: {host}\r\nconnection: close\r\n\r\n");
        driver.set_read_timeout(Some(PATIENCE))?;
        driver.write_all(request.as_bytes())?;
        driver.read_exact(&mut [0])?;
        Ok(())
    }
}

impl Drop for Browser {
    /// Ends the session even if a test fails: the browser ends with its session, not with its
    /// driver.
    fn drop(&mut self) {
        let _ = self.end_session();
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

/// A driver and its port.
fn driver() -> Option<(Child, String)> {
    let mut process = Command::new("chromedriver")
        .arg("--port=0")
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .expect("chromedriver is installed: apt-get install chromium chromium-driver");
    let output = process.stdout.take().expect("its output is piped");
    let lines = BufReader::new(output).lines();
    let port = lines.map_while(Result::ok).find_map(|line| {
        let (_, port) = line.split_once("started successfully on port ")?;
        Some(port.trim_end_matches('.').to_owned())
    });
    match port {
        Some(port) => Some((process, port)),
        None => {
            let _ = process.wait();
            None
        }
    }
}

async fn answer(request: reqwest::RequestBuilder) -> Result<Value, Refused> {
    let answer = request.send().await.expect("the driver responds");
    let text = answer.text().await.expect("the driver responds");
    let mut answer: Value = serde_json::from_str(&text).expect("the driver responds with JSON");
    let value = answer["value"].take();
    match value["error"].as_str() {
        Some(error) => Err(Refused(format!("{error}: {}", value["message"]))),
        None => Ok(value),
    }
}

/// An element of the page.
pub(crate) struct Element<'a> {
    browser: &'a Browser,
    id: String,
}

impl Element<'_> {
    fn reference(&self) -> Value {
        json!({ELEMENT: self.id})
    }

    /// Its visible text; `None` if it is gone.
    async fn text(&self) -> Option<String> {
        self.read("return arguments[0].innerText ?? arguments[0].textContent").await
    }

    /// The text typed into it.
    pub(crate) async fn value(&self) -> String {
        let value = self.read("return arguments[0].value").await;
        value.unwrap_or_default()
    }

    pub(crate) async fn attribute(&self, name: &str) -> Option<String> {
        let script = format!("return arguments[0].getAttribute({})", json!(name));
        self.read(&script).await
    }

    async fn read(&self, script: &str) -> Option<String> {
        let read = self.browser.try_to_run(script, vec![self.reference()]).await;
        Some(read.ok()?.as_str()?.to_owned())
    }

    /// A mouse click; fails if something covers it or it is gone.
    pub(crate) async fn click(&self) -> Result<(), String> {
        let path = format!("/element/{}/click", self.id);
        let clicked = self.browser.post(&path, json!({})).await;
        clicked.map(|_| ()).map_err(|Refused(why)| why)
    }

    async fn type_in(&self, text: &str) {
        let path = format!("/element/{}/value", self.id);
        let typed = self.browser.post(&path, json!({"text": text})).await;
        typed.unwrap();
    }
}

/// The network's events.
pub(crate) struct Traffic(Vec<Value>);

impl Traffic {
    fn of<'a>(&'a self, method: &'a str) -> impl Iterator<Item = &'a Value> {
        self.0.iter().filter(move |event| event["method"] == method).map(|event| &event["params"])
    }

    /// The requests' methods and URLs.
    pub(crate) fn requests(&self) -> Vec<(String, String)> {
        let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
        self.of("Network.requestWillBeSent")
            .map(|event| (text(&event["request"]["method"]), text(&event["request"]["url"])))
            .collect()
    }

    /// Number of requests with this method and a path that ends with `end`.
    pub(crate) fn count(&self, method: &str, end: &str) -> usize {
        let requests = self.requests();
        let wanted = |(name, url): &&(String, String)| name == method && url.ends_with(end);
        requests.iter().filter(wanted).count()
    }

    /// The ids and URLs of requests with a response.
    pub(crate) fn answered(&self) -> Vec<(String, String)> {
        let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
        self.of("Network.responseReceived")
            .map(|event| (text(&event["requestId"]), text(&event["response"]["url"])))
            .collect()
    }

    /// Bytes on the wire of the responses to requests whose URLs match `wanted`, heads included.
    pub(crate) fn bytes(&self, wanted: impl Fn(&str) -> bool) -> u64 {
        let answered = self.answered();
        self.of("Network.loadingFinished")
            .filter(|event| {
                let id = event["requestId"].as_str().unwrap_or_default();
                answered.iter().any(|(of, url)| of == id && wanted(url))
            })
            // A whole number, written with or without a fraction.
            .map(|event| event["encodedDataLength"].to_string())
            .filter_map(|bytes| bytes.split('.').next()?.parse::<u64>().ok())
            .sum()
    }
}
