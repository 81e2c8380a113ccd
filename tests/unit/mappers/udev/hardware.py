"""Devices as Linux' sysfs shows them on boards: serial adapters with and without serial numbers, Zigbee sticks, a modem with
several ports, cameras, an RTL-SDR, GPIO chips, I2C buses and sensors, a NIC."""

from mappers.udev.found import Found, Node


def ftdi(
    number: int = 0, *, bus: int = 1, port: str = "1.4", serial: str = "A50285BI", interface: int = 0
) -> Found:
    usb = f"{bus}-{port}"
    at = f"{usb}:1.{interface}"
    name = f"ttyUSB{number}"
    attributes = {"idVendor": "0403", "idProduct": "6001", "product": "FT232R USB UART"}
    if serial:
        attributes["serial"] = serial
    return Found(
        path=f"/devices/pci0000:00/0000:00:00.0/0000:01:00.0/usb{bus}/{bus}-1/{usb}/{at}/{name}/tty/{name}",
        node=Node(name=name, subsystem="tty"),
        above=(
            Node(name=name, subsystem="usb-serial", driver="ftdi_sio"),
            Node(
                name=at,
                subsystem="usb",
                devtype="usb_interface",
                driver="ftdi_sio",
                attributes={"bInterfaceNumber": f"{interface:02d}"},
            ),
            Node(name=usb, subsystem="usb", devtype="usb_device", driver="usb", attributes=attributes),
            Node(
                name=f"{bus}-1",
                subsystem="usb",
                devtype="usb_device",
                driver="usb",
                attributes={"idVendor": "2109", "idProduct": "3431", "product": "USB2.0 Hub"},
            ),
            Node(
                name=f"usb{bus}",
                subsystem="usb",
                devtype="usb_device",
                driver="usb",
                attributes={"idVendor": "1d6b", "idProduct": "0002", "serial": "0000:01:00.0"},
            ),
            Node(
                name="0000:01:00.0",
                subsystem="pci",
                driver="xhci_hcd",
                attributes={"vendor": "0x1106", "device": "0x3483"},
            ),
        ),
        dev_node=f"/dev/{name}",
        properties={"DEVNAME": f"/dev/{name}", "MAJOR": "188", "MINOR": str(number), "SUBSYSTEM": "tty"},
    )


def camera(number: int, index: int) -> Found:
    usb = ftdi().above[2]
    name = f"video{number}"
    attributes = {"idVendor": "046d", "idProduct": "0825", "serial": "9F3A2B10", "product": "Webcam C270"}
    return Found(
        path=f"/devices/pci0000:00/0000:01:00.0/usb1/1-1/1-1.4/1-1.4:1.0/video4linux/{name}",
        node=Node(name=name, subsystem="video4linux", attributes={"index": str(index), "name": "UVC Camera"}),
        above=(
            Node(name="1-1.4:1.0", subsystem="usb", devtype="usb_interface", driver="uvcvideo"),
            Node(name=usb.name, subsystem="usb", devtype="usb_device", attributes=attributes),
            Node(name="0000:01:00.0", subsystem="pci", driver="xhci_hcd"),
        ),
        dev_node=f"/dev/{name}",
    )


GPIO = Found(
    path="/devices/platform/soc/fe200000.gpio/gpiochip0",
    node=Node(name="gpiochip0", subsystem="gpio"),
    above=(
        Node(
            name="fe200000.gpio",
            subsystem="platform",
            driver="pinctrl-bcm2835",
            attributes={"of_node/compatible": "brcm,bcm2711-gpio"},
        ),
        Node(name="soc", subsystem="platform"),
    ),
    dev_node="/dev/gpiochip0",
)
I2C = Found(
    path="/devices/platform/soc/fe804000.i2c/i2c-1/1-0076",
    node=Node(name="1-0076", subsystem="i2c", driver="bmp280", attributes={"name": "bme280"}),
    above=(Node(name="i2c-1", subsystem="i2c"), Node(name="fe804000.i2c", driver="i2c-bcm2835")),
)
NIC = Found(
    path="/devices/pci0000:00/0000:00:1f.6/net/eno1",
    node=Node(name="eno1", subsystem="net", attributes={"address": "02:42:ac:11:00:02"}),
    above=(
        Node(
            name="0000:00:1f.6",
            subsystem="pci",
            driver="e1000e",
            attributes={"vendor": "0x8086", "device": "0x15be"},
        ),
    ),
)


def usb_serial(
    vendor: str,
    product: str,
    *,
    serial: str | None,
    port: str = "1.3",
    bus: int = 1,
    name: str = "ttyUSB0",
    driver: str = "ch341-uart",
    called: str = "USB Serial",
    interface: int = 0,
) -> Found:
    """A serial port of any adapter.  serial: None for one that has no such attribute."""
    usb = f"{bus}-{port}"
    at = f"{usb}:1.{interface}"
    attributes = {"idVendor": vendor, "idProduct": product, "product": called}
    if serial is not None:
        attributes["serial"] = serial
    return Found(
        path=f"/devices/platform/scb/fd500000.pcie/usb{bus}/{usb}/{at}/{name}/tty/{name}",
        node=Node(name=name, subsystem="tty"),
        above=(
            Node(name=name, subsystem="usb-serial", driver=driver),
            Node(name=at, subsystem="usb", devtype="usb_interface", driver=driver),
            Node(name=usb, subsystem="usb", devtype="usb_device", driver="usb", attributes=attributes),
            Node(name=f"usb{bus}", subsystem="usb", devtype="usb_device", driver="usb"),
            Node(name="fd500000.pcie", subsystem="platform", driver="brcm-pcie"),
        ),
        dev_node=f"/dev/{name}",
    )


def ch340(number: int = 0, *, port: str = "1.3") -> Found:
    """Has no serial number at all."""
    return usb_serial("1a86", "7523", serial=None, port=port, name=f"ttyUSB{number}")


def cp2102(number: int = 0, *, port: str = "1.3", serial: str = "0001") -> Found:
    """Many boards with it leave the maker's example for a serial number."""
    return usb_serial(
        "10c4",
        "ea60",
        serial=serial,
        port=port,
        name=f"ttyUSB{number}",
        driver="cp210x",
        called="CP2102 USB to UART",
    )


def pl2303(number: int = 0, *, port: str = "1.3") -> Found:
    return usb_serial("067b", "2303", serial="", port=port, name=f"ttyUSB{number}", driver="pl2303")


ZBDONGLE = usb_serial(
    "10c4",
    "ea60",
    serial="0c9e31c2b5f0eb118f2d1a2e38a92db5",
    driver="cp210x",
    called="Sonoff Zigbee 3.0 USB Dongle Plus",
)
CONBEE = usb_serial("1cf1", "0030", serial="DE2132111", name="ttyACM0", driver="cdc_acm", called="ConBee II")


def modem(number: int) -> Found:
    """An LTE modem: several ports of one device, with a serial number that is none."""
    return usb_serial(
        "12d1",
        "1506",
        serial="0123456789ABCDEF",
        name=f"ttyUSB{number}",
        driver="option",
        called="HUAWEI Mobile",
        interface=number,
    )


def rtl_sdr(*, port: str = "1.2", number: int = 5) -> Found:
    """Not a serial port: a program opens the USB device itself, whose node has another number each time."""
    return Found(
        path=f"/devices/platform/scb/fd500000.pcie/usb1/1-{port}",
        node=Node(
            name=f"1-{port}",
            subsystem="usb",
            devtype="usb_device",
            driver="usb",
            attributes={
                "idVendor": "0bda",
                "idProduct": "2838",
                "product": "RTL2838UHIDIR",
                "serial": "00000001",
            },
        ),
        above=(
            Node(name="usb1", subsystem="usb", devtype="usb_device", driver="usb"),
            Node(name="fd500000.pcie", subsystem="platform", driver="brcm-pcie"),
        ),
        dev_node=f"/dev/bus/usb/001/{number:03d}",
    )


I2C_BUS = Found(
    path="/devices/platform/soc/fe804000.i2c/i2c-1/i2c-dev/i2c-1",
    node=Node(name="i2c-1", subsystem="i2c-dev", attributes={"name": "bcm2835 (i2c@7e804000)"}),
    above=(
        Node(name="i2c-1", subsystem="i2c"),
        Node(name="fe804000.i2c", subsystem="platform", driver="i2c-bcm2835"),
    ),
    dev_node="/dev/i2c-1",
)
CSI_CAMERA = Found(
    path="/devices/platform/soc/fe801000.csi/video4linux/video0",
    node=Node(name="video0", subsystem="video4linux", attributes={"index": "0", "name": "unicam-image"}),
    above=(Node(name="fe801000.csi", subsystem="platform", driver="unicam"),),
    dev_node="/dev/video0",
)
UART = Found(
    path="/devices/platform/soc/fe201000.serial/tty/ttyAMA0",
    node=Node(name="ttyAMA0", subsystem="tty"),
    above=(Node(name="fe201000.serial", subsystem="amba", driver="uart-pl011"),),
    dev_node="/dev/ttyAMA0",
)
