"""Open a report in Chromium, use it as a person does, and print what is there as JSON.

    browse_report.py CHROMIUM REPORT RUN FILTER [SCREENSHOTS KIND]

RUN is a run to follow by its link, FILTER a text to type. Pictures go to the folder SCREENSHOTS: those of the
KIND `overview` or `steps`. With `steps` nothing else is done. It runs in an environment with Playwright and without deltawitness.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import Browser, Page, sync_playwright

LIMIT_MS = 60_000

STEPS = {"viewport": {"width": 1000, "height": 460}, "color_scheme": "light"}
VIEWS = {
    "light": {"viewport": {"width": 1200, "height": 900}, "color_scheme": "light"},
    "dark": {"viewport": {"width": 1200, "height": 900}, "color_scheme": "dark"},
    "phone": {"viewport": {"width": 390, "height": 844}, "color_scheme": "light"},
}


class Watched:
    """A page whose console, errors and requests are recorded."""

    def __init__(self, browser: Browser, address: str, **options: object) -> None:
        self.page: Page = browser.new_page(**options)
        self.page.set_default_timeout(LIMIT_MS)
        self.console: list[str] = []
        self.requests: list[str] = []
        self.page.on("console", lambda message: self.console.append(message.text))
        self.page.on("pageerror", lambda error: self.console.append(str(error)))
        self.page.on("dialog", lambda dialog: self.console.append(f"dialog {dialog.message}"))
        self.page.on("request", lambda request: self.requests.append(request.url))
        self.page.goto(address)


def faults(page: Page) -> list[str]:
    """Return the serious accessibility faults that axe-core finds."""
    found = Axe().run(page).response["violations"]
    return [
        f"{each['id']}: {each['nodes'][0]['html'][:200]} {each['nodes'][0]['failureSummary']}"
        for each in found
        if each["impact"] in {"serious", "critical"}
    ]


def texts(page: Page, selector: str) -> list[str]:
    return page.locator(selector).all_inner_texts()


def column(page: Page, number: int) -> list[str]:
    return texts(page, f"#rows tbody tr td:nth-child({number})")


def use(watched: Watched, run: str, wanted: str) -> dict[str, object]:
    """Filter, sort, turn pages and follow a link; return what is shown after each."""
    page = watched.page
    done: dict[str, object] = {
        "bars": page.locator("svg.timeline .bar").count(),
        "widths": page.evaluate(
            "[...document.querySelectorAll('svg.timeline .bar')].map(b => b.getBoundingClientRect().width)"
        ),
        "nodes": page.locator("svg.lineage .node").count(),
        "edges": page.locator("svg.lineage .edge").count(),
        "sparks": page.locator("svg.spark polyline").count(),
        "at_start": texts(page, "#count")[0],
        "first_times": column(page, 1),
        "hacked": page.evaluate("window.hacked === undefined ? 'no' : 'yes'"),
        "foreign": page.locator("img, iframe, b, #injected").count(),
        "text": page.locator("body").inner_text(),
    }
    page.locator("#filter").fill(wanted)
    done["filtered"] = column(page, 4)
    done["filter_address"] = page.evaluate("location.hash")
    page.locator("#clear").focus()
    page.keyboard.press("Enter")
    done["cleared"] = texts(page, "#count")[0]
    page.locator("#rows th button", has_text="version").focus()
    page.keyboard.press("Enter")
    done["ascending"] = column(page, 7)
    done["sorted"] = page.locator("#rows th[aria-sort]").get_attribute("aria-sort")
    done["focused"] = page.evaluate("document.activeElement.textContent")
    page.keyboard.press("Enter")
    done["descending"] = column(page, 7)
    page.locator("#runs-title ~ .scroll a", has_text=run[:13]).first.click()
    page.wait_for_function("!document.getElementById('chosen').hidden")
    done["followed"] = sorted(set(column(page, 3)))
    done["faded"] = page.locator("svg.timeline .faded").count()
    return done


def use_graph(page: Page) -> dict[str, object]:
    """Choose an edge with a click and a table with the keys; return the columns that are shown after each."""
    row = "[...document.querySelectorAll('#columns tbody tr')].map(r => [...r.cells].map(c => c.textContent).join(' '))"
    done: dict[str, object] = {}
    page.locator("svg.lineage .hit").first.click(force=True)
    done["edge_columns"] = page.evaluate(row)
    done["graph_stops"] = page.locator("svg.lineage [tabindex='0']").count()
    page.keyboard.press("Escape")
    page.keyboard.press("End")
    page.keyboard.press("Enter")
    done["node_columns"] = page.evaluate(row)
    done["columns_heading"] = texts(page, "#columns h3")[0]
    done["columns_focused"] = page.evaluate("document.activeElement.id")
    done["faults_columns"] = faults(page)
    page.keyboard.press("Escape")
    done["columns_left"] = page.evaluate(
        "[document.getElementById('columns').hidden, document.activeElement.getAttribute('aria-label')]"
    )
    return done


def picture_steps(
    browser: Browser, address: str, run: str, table: str, folder: Path
) -> dict[str, object]:
    """Write a picture of each step from the verdict to what depends on a failed run."""
    watched = Watched(browser, address, **STEPS)
    page = watched.page

    def picture(name: str, place: str) -> None:
        page.locator(place).first.screenshot(path=str(folder / f"report-step-{name}.png"))

    page.screenshot(path=str(folder / "report-step-verdict.png"))
    picture("why", "#failed .failure")
    picture("landed", "#errors")
    page.locator(f"svg.lineage .node[aria-label^='{table}']").click()
    picture("depends", "#lineage")
    page.locator(f".failure a[href='#run={run}']").click()
    page.wait_for_function("!document.getElementById('chosen').hidden")
    picture("tables", "#events")
    return {"console": watched.console}


def main() -> None:
    chromium, report, run, wanted, *pictures = sys.argv[1:]
    screenshots, kind = pictures or ("", "")
    address = Path(report).absolute().as_uri()
    results: dict[str, object] = {}
    with sync_playwright() as playwright:
        # Chromium has no sandbox as root, which containers are; the page is a file of the test.
        browser = playwright.chromium.launch(executable_path=chromium, args=["--no-sandbox"])
        if kind == "steps":
            print(json.dumps(picture_steps(browser, address, run, wanted, Path(screenshots))))
            return
        watched = []
        for name, options in VIEWS.items():
            each = Watched(browser, address, **options)
            watched.append(each)
            results[f"faults_{name}"] = faults(each.page)
            width = "document.documentElement.scrollWidth - document.documentElement.clientWidth"
            results[f"overflow_{name}"] = each.page.evaluate(width)
            if screenshots:
                each.page.screenshot(path=str(Path(screenshots, f"report-{name}.png")))
        results["background"] = [
            each.page.evaluate("getComputedStyle(document.body).backgroundColor")
            for each in watched
        ]
        results |= use_graph(watched[0].page)
        results |= use(watched[0], run, wanted)
        linked = Watched(browser, f"{address}#run={run[:13]}", **VIEWS["light"])
        results["deep_link"] = sorted(set(column(linked.page, 3)))
        results["deep_link_top"] = linked.page.evaluate(
            "document.getElementById('events').getBoundingClientRect().top"
        )
        watched.append(linked)
        results["console"] = [line for each in watched for line in each.console]
        results["requests"] = sorted(
            {url.split("#")[0] for each in watched for url in each.requests}
        )
        results["address"] = address
        browser.close()
    print(json.dumps(results))


if __name__ == "__main__":
    main()
