"use strict";
(() => {
  const holder = document.getElementById("viewer");
  if (!holder) return;
  const message = holder.querySelector(".message");
  const tools = document.getElementById("viewer-tools");
  const say = (text) => { message.textContent = text; message.hidden = !text; };
  const fail = (text) => { say(text); globalThis.VIEWER_READY = text; };
  // A page that was opened as a file may load scripts that lie beside it, and nothing else.
  const load_script = (address) => new Promise((done, failed) => {
    const script = document.createElement("script");
    script.src = address;
    script.onload = done;
    script.onerror = () => failed(new Error(`${address} is missing beside this page`));
    document.head.append(script);
  });

  const start = async () => {
    const probe = document.createElement("canvas").getContext("webgl2");
    if (!probe) {
      fail("This browser has no WebGL 2. The pictures below show the same scans.");
      return;
    }
    say("Loading the viewer");
    await load_script(holder.dataset.program);
    await load_script(holder.dataset.volumes);
    const data = globalThis.VOLUMES;

    const canvas = holder.querySelector("canvas");
    const where = document.getElementById("where");
    const settings = {
      backColor: [0, 0, 0, 1], crosshairColor: [0.55, 0.75, 0.95, 0.8], crosshairWidth: 0.25, show3Dcrosshair: true,
      isRadiologicalConvention: true, textHeight: 0.05, dragAndDropEnabled: false, loadingText: "",
      logLevel: "silent", multiplanarShowRender: 0, isColorbar: true, dragMode: niivue.DRAG_MODE.measurement, onLocationChange: (place) => { where.textContent = place.string; },
    };
    const nv = new niivue.Niivue(settings);
    globalThis.nv = nv;
    await nv.attachToCanvas(canvas);
    canvas.setAttribute("aria-label", "Interactive viewer of the scan; its pictures are also below");

    const choose = document.getElementById("scan");
    const layers = document.getElementById("layers");
    const opacity = document.getElementById("opacity");
    const low = document.getElementById("low");
    const high = document.getElementById("high");
    const view = document.getElementById("view");
    let busy = Promise.resolve();

    // The scan and its masks in one of the two viewers.
    const fill = async (shown, scan) => {
      shown.volumes.slice().forEach((volume) => shown.removeVolume(volume));
      const add = async (item, options) => {
        const volume = await niivue.NVImage.loadFromBase64({ base64: item.base64, name: `${item.name}.nii.gz`, ...options });
        // The scale of a mask says nothing.
        volume.colorbarVisible = item === scan;
        shown.addVolume(volume);
      };
      await add(scan, { colormap: scan.colormap, cal_min: scan.window[0], cal_max: scan.window[1] });
      for (const [number, mask] of scan.masks.entries()) {
        shown.addColormap(`mask${number}`, { R: [0, mask.rgb[0]], G: [0, mask.rgb[1]], B: [0, mask.rgb[2]], A: [0, 255], I: [0, 255] });
        await add(mask, { colormap: `mask${number}`, cal_min: 0, cal_max: 1, opacity: Number(opacity.value) });
      }
    };
    const load = async (scan) => {
      layers.querySelectorAll("label").forEach((label) => label.remove());
      await fill(nv, scan);
      for (const [number, mask] of scan.masks.entries()) {
        const label = document.createElement("label");
        const box = document.createElement("input");
        const swatch = document.createElement("i");
        box.type = "checkbox";
        box.checked = true;
        swatch.style.background = `rgb(${mask.rgb.join(",")})`;
        box.addEventListener("change", () => nv.setOpacity(number + 1, box.checked ? Number(opacity.value) : 0));
        label.append(box, swatch, mask.name);
        layers.append(label);
      }
      layers.hidden = scan.masks.length === 0;
      const span = scan.window[1] - scan.window[0];
      for (const slider of [low, high]) {
        slider.min = scan.window[0] - 0.5 * span;
        slider.max = scan.window[1] + 0.5 * span;
        slider.step = span / 200;
      }
      low.value = scan.window[0];
      high.value = scan.window[1];
      if (scan.centre) {
        nv.scene.crosshairPos = nv.mm2frac(scan.centre);
        nv.updateGLVolume();
      }
    };
    data.forEach((scan, number) => choose.add(new Option(scan.title, number)));
    choose.addEventListener("change", () => { busy = busy.then(() => load(data[choose.value])); });
    // A second scan beside the first, before and after, moving together.
    const beside = document.getElementById("beside");
    let second = null;
    beside.parentElement.hidden = data.length < 2;
    data.forEach((scan, number) => beside.add(new Option(scan.title, number)));
    const compare = async () => {
      const wanted = beside.value !== "";
      holder.classList.toggle("two", wanted);
      // NiiVue measures a canvas only when the window changes: without this the head is squeezed.
      nv.resizeListener();
      if (!wanted) return;
      if (!second) {
        const other = document.createElement("canvas");
        other.tabIndex = 0;
        other.setAttribute("aria-label", "Second scan, beside the first");
        canvas.after(other);
        second = new niivue.Niivue({ ...settings, onLocationChange: () => {} });
        globalThis.nv2 = second;
        await second.attachToCanvas(other);
        nv.broadcastTo([second], { "2d": true, "3d": true });
        second.broadcastTo([nv], { "2d": true, "3d": true });
      }
      second.resizeListener();
      second.setSliceType(nv[view.value]);
      await fill(second, data[beside.value]);
      second.scene.crosshairPos = second.mm2frac(nv.frac2mm(nv.scene.crosshairPos));
      second.updateGLVolume();
    };
    beside.addEventListener("change", () => { busy = busy.then(compare); });
    opacity.addEventListener("input", () => {
      if (second) for (let number = 1; number < second.volumes.length; number += 1) second.setOpacity(number, Number(opacity.value));
      layers.querySelectorAll("input").forEach((box, number) => { if (box.checked) nv.setOpacity(number + 1, Number(opacity.value)); });
    });
    const rewindow = () => {
      if (!nv.volumes.length || Number(low.value) >= Number(high.value)) return;
      nv.volumes[0].cal_min = Number(low.value);
      nv.volumes[0].cal_max = Number(high.value);
      nv.updateGLVolume();
    };
    document.getElementById("picture").addEventListener("click", () => nv.saveScene(`${data[choose.value].name}.png`));
    low.addEventListener("input", rewindow);
    high.addEventListener("input", rewindow);
    view.addEventListener("change", () => [nv, second].forEach((shown) => { if (shown) shown.setSliceType(shown[view.value]); }));
    nv.setSliceType(nv.sliceTypeMultiplanar);
    await load(data[0]);
    say("");
    tools.hidden = false;
    globalThis.VIEWER_READY = true;
  };
  start().catch((error) => fail(`The viewer did not start (${error}). The pictures below show the same scans.`));
})();
