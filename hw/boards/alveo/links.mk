
# The links: AuroraFlow, built from its own repository.
AURORA_FLOW_DIR ?= AuroraFlow
USE_FRAMING     := 1
FIFO_WIDTH      := @beat_bytes@
ifeq ($(wildcard $(AURORA_FLOW_DIR)/aurora_flow.mk),)
$(error AURORA_FLOW_DIR must be a clone of https://github.com/pc2/AuroraFlow, not $(AURORA_FLOW_DIR))
endif
include $(AURORA_FLOW_DIR)/aurora_flow.mk
ifeq ($(TARGET),hw)
LINK_XOS := $(AURORA_FLOW_XOS_HW)
else
LINK_XOS := $(AURORA_FLOW_XOS_HW_EMU)
endif
.DEFAULT_GOAL := all
