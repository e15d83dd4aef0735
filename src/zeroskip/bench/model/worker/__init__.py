"""The process that runs one engine for `zeroskip bench model`: orders come in and answers go out as lines of JSON."""
