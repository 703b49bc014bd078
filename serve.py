from trimtab.plugin.serve import run  # if trimtab is not installed in this Python: make install

if __name__ == "__main__":  # the engine's processes import this file again
    raise SystemExit(run())
